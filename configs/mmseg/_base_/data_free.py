# The data-free game in MMSegmentation's own runner: what every such config needs.
custom_imports = dict(imports=["dfad_seg.integrations.mmseg"], allow_failed_imports=False)
custom_hooks = [dict(type="ExportStudentHook")]
model_wrapper_cfg = dict(type="DataFreeDistributed")  # takes effect with several processes
