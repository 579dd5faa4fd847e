"""What is attacked, and what is put in the place of the good."""

FORGED = "a\x1b[31m\x07\nerror: forged\r\u202e"
NASTY = [
    *(None, True, -1, 0, 3, 1e308, float("nan"), float("inf"), 2**70, -(2**63), "", "x", FORGED, "y" * 100_000),
    *([], {}, [1, 2, 3], {"a": 1}, ["z"] * 3, "../../outside.txt", "/dev/zero", "\0", "\udcff", [[[[[[]]]]]], ...),
]
SHORT = {
    "RESUME": "train config.yaml --work-dir run --resume",
    "TRAIN": "train config.yaml --work-dir new",
    "SAFE": "export run --format safetensors",
    "CKPT": "run/checkpoints/iteration_00000001.pt",
    "COCO": "--cfg-options dataset.annotation_file=<split>.json dataset.image_dir=<split>",
    "PREDICTED": "--dataset coco --dataset-root coco --split val --predictions coco.json",
    "CHECK": "prepare check --any-count --root",
    "DRAW": "prepare street-scenes --size 32 32 --train 1 --val 1 --test 1 --root",
    "TEACHER": "--role teacher",
    "SCANS": "scans --type folders --options img_dir=. ann_dir=. classes=[a] img_range=[0,9] img_suffix=",
}
# What is attacked: its place in the world, how its content is taken apart, and the commands that read it.
FILES = {
    "config": ("config.yaml", "yaml", "eval config.yaml run/student.pt; train config.yaml --dry-run; TRAIN"),
    "config of a run": ("run/config.yaml", "yaml", "eval run; report run; compare run; SAFE --split val; RESUME; "
                        "eval --compare run teacher"),
    "network": ("run/student.pt", "torch", "inspect run/student.pt; eval run; SAFE; report run"),
    "weights": ("weights.pt", "torch", "inspect weights.pt --out c.yaml; TRAIN; eval config.yaml weights.pt TEACHER"),
    "safetensors": ("w.safetensors", "bytes", "inspect w.safetensors; eval config.yaml w.safetensors TEACHER"),
    "checkpoint": ("run/checkpoints/iteration_00000001.pt", "torch", "RESUME; inspect CKPT; RESUME CKPT"),
    "provenance": ("run/provenance.json", "json", "report run; compare run; SAFE; RESUME"),
    "summary": ("run/summary.json", "json", "report run; compare run --out out; eval run --split val; RESUME"),
    "metrics": ("run/metrics.jsonl", "jsonl", "report run; compare run; RESUME"),
    "lock": ("run/run.lock", "bytes", "RESUME; report run"),
    "report": ("run/report.html", "bytes", "report run; RESUME"),
    "picture of a run": ("run/pictures/generated_00000002.png", "bytes", "report run"),
    "folder of a run": ("run/pictures", "folder", "report run; RESUME CKPT"),
    "image": ("data/val/street_00000.png", "bytes", "eval run; CHECK data --type camvid; train supervised.yaml "
              "--work-dir new --cfg-options training_data.split=val"),
    "mask": ("data/valannot/street_00000.png", "bytes", "eval run --show-dir out; CHECK data --type camvid"),
    "record of a data set": ("data/street_scenes.json", "json", "DRAW data"),
    "split list": ("voc/ImageSets/Segmentation/val.txt", "bytes", "CHECK voc --type voc; "
                   "eval --dataset voc --dataset-root voc --split val --predictions pngs"),
    "annotations": ("coco/val.json", "json", "eval PREDICTED COCO; CHECK coco --type coco --options "
                    "annotation_file=<split>.json image_dir=<split>"),
    "COCO results": ("coco.json", "json", "eval PREDICTED COCO"),
    "prediction": ("pngs/street_00000.png", "bytes", "eval config.yaml --predictions pngs; eval --compare run pngs"),
    "list of results": ("results.json", "json", "compare run --results results.json"),
    "archive": ("voc.tar", "bytes", "prepare voc --root new --archive voc.tar"),
    "DICOM": ("scans/a.dcm", "bytes", "CHECK SCANS.dcm"),
    "array": ("scans/a.npy", "bytes", "CHECK SCANS.npy"),
    "image of 16 bits": ("scans/a.tif", "bytes", "CHECK SCANS.tif"),
    "ONNX": ("a.onnx", "bytes", "inspect a.onnx; eval config.yaml a.onnx TEACHER; export a.onnx --format onnx"),
    "TorchScript": ("a.torchscript", "bytes", "inspect a.torchscript --trust; inspect a.torchscript; "
                    "eval program.yaml a.torchscript"),
    "torch.export": ("a.pt2", "bytes", "inspect a.pt2 --trust; inspect a.pt2"),
}  # fmt: skip
# Where results go: a command with OUT for it.
TARGETS = {
    "--out of eval": "eval run --out OUT.json",
    "--save-coco": "eval run --save-coco OUT",
    "--save-predictions": "eval run --save-predictions OUT",
    "--show-dir": "eval run --show-dir OUT",
    "--out of export, a file": "export run --format torchscript --size 32 32 --out OUT",
    "--out of export, a folder": "export run --format smp --out OUT",
    "--out of inspect": "inspect weights.pt --out OUT",
    "--out of compare": "compare run --out OUT",
    "--results": "compare run --results OUT",
    "--work-dir": "train config.yaml --work-dir OUT",
    "--root": "DRAW OUT",
}
NAMES = {
    "missing": "nowhere/at/all",
    "a name too long": "n" * 300,
    "a path too long": "p/" * 3000 + "x",
    "through a file": "config.yaml/x/y",
    "escape sequences": "\x1b[31m\nerror: forged",
    "no UTF-8": "\udcff\udcfe",
    "empty": "",
    "of no user": "~nobody_such/x",
    "in /proc": "/proc/nothing/x",
}
GOOD_COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 32, "width": 48}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]]}
    ],
    "categories": [{"id": 1, "name": "cat"}],
}
