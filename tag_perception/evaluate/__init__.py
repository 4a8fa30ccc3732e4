"""Official metrics behind one callable predict(image, camera) → Scene, and reports on them."""
