# The student alone, as a network of MMSegmentation: dfad_camvid_cpu.yaml trains it without data.
_base_ = ["_base_/student_mobilenetv2_half.py", "_base_/camvid.py", "_base_/runtime.py"]
