"""tag_perception: one camera in; 3D detections, segmentation and depth out."""
