"""COCO 2017's classes."""

from fsaf.data.records import Classes

_NAMES = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
fire hydrant, -, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear,
zebra, giraffe, -, backpack, umbrella, -, -, handbag, tie, suitcase, frisbee, skis, snowboard,
sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, -,
wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog,
pizza, donut, cake, chair, couch, potted plant, bed, -, dining table, -, -, toilet, -, tv, laptop, mouse,
remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, -, book, clock, vase,
scissors, teddy bear, hair drier, toothbrush"""
_BY_ID = {id_: name for id_, name in enumerate(_NAMES.replace("\n", " ").split(", "), start=1) if name != "-"}

COCO = Classes(names=tuple(_BY_ID.values()), ids=tuple(_BY_ID))
"""The 80 classes with boxes, and their ids: ten of 1..90 are not used."""
