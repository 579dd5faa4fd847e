# The distillation of dfad_camvid_cpu.yaml in MMSegmentation's own runner:
#   python MMSEG/tools/train.py configs/mmseg/dfad_mobilenetv2_half_camvid.py
# It ends with work_dirs/dfad_mobilenetv2_half_camvid/student/student.{py,pth}, a plain network of MMSegmentation.
_base_ = ["_base_/camvid.py", "_base_/runtime.py", "_base_/data_free.py"]
# The game's keys: those of any YAML config of method dfad, here or in a file.
model = dict(type="DataFreeStudent", game="configs/mmseg/dfad_camvid_cpu.yaml")
train_cfg = dict(type="DataFreeLoop", val_interval=60)
train_dataloader = dict(_delete_=True)  # training reads nothing; the other data loaders serve validation and tests
