"""What stands still leaves the lanes to what drives, and to the camera."""

from tag_perception.data.street.dice import Dice
from tag_perception.data.street.furniture import Furniture
from tag_perception.data.street.lots import LOW_TREE, Lots
from tag_perception.data.street.stage import Stage, shapes
from tag_perception.data.street.town import plan
from tag_perception.data.street.weather import draw


def test_branches_near_the_ground_end_before_the_lanes():
    number, tree = list(shapes()).index(LOW_TREE), shapes()[LOW_TREE]
    low, high = tree.low[1], tree.high[1]
    nearest_m = []
    for seed in range(60):
        dice = Dice(str(seed))
        street, weather, stage = plan(dice), draw(dice), Stage()
        for builder in (Lots, Furniture):
            builder(street, stage, weather, dice).build()
        for shape, (_, d, _, _), (_, width, _) in zip(
            stage.shape, stage.place, stage.scale, strict=True
        ):
            if shape == number:
                for lane in street.lanes:
                    right, left = lane.d - lane.width / 2, lane.d + lane.width / 2
                    nearest_m.append(max(d + low * width - left, right - d - high * width))
    assert len(nearest_m) > 1000
    assert -1e-6 < min(nearest_m) < 1e-6  # some reach to the very edge
