# The data-free game in MMSegmentation's own runner: what every such config needs beside its model.
custom_imports = dict(imports=["dfad_seg.integrations.mmseg"], allow_failed_imports=False)
custom_hooks = [dict(type="ExportStudentHook")]
optim_wrapper = dict(constructor="GameOptimizers")  # the runner asks for one, and the game has its own two
