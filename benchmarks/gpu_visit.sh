#!/usr/bin/env bash
# What one short visit to a machine with a GPU is for: throughput, teachers, students of them, their rows. Each part leaves
# its files in OUT, a part that is done is not repeated, and a training that was cut off is resumed.
#
#   benchmarks/gpu_visit.sh DATA OUT [PART ...]
#   SMOKE=gpu benchmarks/gpu_visit.sh DATA OUT        the same with a few iterations each
#   SMOKE=cpu benchmarks/gpu_visit.sh DATA OUT        and with small images, on any machine
#
# DATA holds CamVid/, of which every image is read at a short side of 256 pixels, weights/mobilenet_v2_imagenet.safetensors,
# and unlabelled photos in voc/ and scenes/. Nothing is fetched. PART: throughput tests teachers students rows; all by
# default, in this order. SEEDS (0 1 2), GAME (iterations of the paper's method, 1000), RECIPE (of the recommended one, 900),
# AT_ONCE (runs that share the GPU, 14).
set -u
cd "$(dirname "$0")/.."
data=$1 out=$2
shift 2
parts=${*:-throughput tests teachers students rows}
PYTHON=${PYTHON:-python3} SMOKE=${SMOKE:-} SEEDS=${SEEDS:-0 1 2} AT_ONCE=${AT_ONCE:-14} GAME=${GAME:-1000} RECIPE=${RECIPE:-900}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONUNBUFFERED=1
mkdir -p "$out"
foreign="segformer lraspp pspnet small"
camvid="dataset={type: camvid, root: $data/CamVid}"
tiny=()
[ -n "$SMOKE" ] && tiny=(iterations=3)
[ "$SMOKE" = cpu ] && tiny+=(batch_size=8 "image_size=[32, 32]")

# part NAME COMMAND...: once, with its output in OUT/NAME.log
part() {
  local name=$1 start=$SECONDS
  shift
  [ -e "$out/$name.done" ] && return 0
  rm -f "$out/$name.failed"
  if "$@" >"$out/$name.log" 2>&1; then
    touch "$out/$name.done"
    echo "$SECONDS s: $name, took $((SECONDS - start)) s"
  else
    touch "$out/$name.failed"
    echo "$SECONDS s: $name FAILED, see $out/$name.log"
    tail -n 3 "$out/$name.log"
    return 1
  fi
}

# Wait until fewer than AT_ONCE parts run.
slot() { while [ "$(jobs -rp | wc -l)" -ge "$AT_ONCE" ]; do wait -n; done; }

# trained NAME CONFIG OPTION...: a run in OUT/NAME, from where it stopped, scored on CamVid's test split
trained() {
  local name=$1 config=$2 resume=
  shift 2
  [ -e "$out/$name/config.yaml" ] && resume=--resume
  $PYTHON tools/train_seg.py "configs/$config.yaml" --work-dir "$out/$name" $resume --cfg-options "$camvid" \
    evaluation.short_side=256 report=short "$@" &&
    timeout -k 5 120 $PYTHON tools/eval_miou.py "$out/$name" --split test --workers 1
}

teacher() {
  local name=$1
  shift
  slot
  part "$name" trained "$name" "$@" training_data.num_workers=3 evaluation.every=400 save_every=400 ${tiny[@]+"${tiny[@]}"} &
}

# student NAME TEACHER CONFIG OPTION...: as soon as its teacher is there
student() {
  local name=$1 of=$2 config=$3
  shift 3
  slot
  (
    until [ -e "$out/$of.done" ]; do
      [ -e "$out/$of.failed" ] && exit 1
      sleep 1
    done
    part "$name" trained "$name" "$config" "teacher.checkpoint=$out/$of/teacher.pt" "$@" ${tiny[@]+"${tiny[@]}"}
  ) &
}

tests() {
  local some=
  [ "$SMOKE" = cpu ] && some="-k discrepancy"
  part tests timeout 100 $PYTHON -m pytest -q --numprocesses 6 -m "not slow" tests/objectives tests/generators tests/distill $some &
}

throughput() {
  local small="--batch 32 --repeats 1 --steps 15 --rows --recipe" paper="--batch 64 --repeats 1 --steps 8 --rows"
  [ "$SMOKE" = cpu ] && small="--repeats 1 --steps 1 --batch 4 --size 32" paper="--repeats 1 --steps 1 --batch 2 --size 32"
  part throughput_small $PYTHON benchmarks/distil_throughput.py --pair small $small --lock "$out/gpu.lock" \
    --json "$out/small_gpu.json" &
  part throughput_paper $PYTHON benchmarks/distil_throughput.py --pair paper $paper --lock "$out/gpu.lock" \
    --json "$out/paper_gpu.json" &
  wait
}

# The familiar teacher is the one that the recipes were tuned on. The others see whole images, one of them of 0-255.
teachers() {
  local unscaled="mean: [0, 0, 0], std: [0.00392157, 0.00392157, 0.00392157]"
  local whole=(batch_size=16 iterations=1200 student_optimizer.lr=2.0e-3 "training_data.scale=[0.75, 1.5]")
  [ "$SMOKE" != cpu ] && whole+=("image_size=[256, 320]")
  teacher teacher_familiar camvid/teacher_deeplabv3plus_mobilenetv2 \
    "teacher.encoder_checkpoint=$data/weights/mobilenet_v2_imagenet.safetensors"
  teacher teacher_resnet camvid/teacher_paper_deeplabv3_r50 teacher.encoder_weights=null student_optimizer.lr=0.03 \
    iterations=2000
  teacher teacher_segformer camvid/teacher_deeplabv3plus_mobilenetv2 "${whole[@]}" student_optimizer.lr=1.0e-3 \
    "teacher={source: smp, arch: Segformer, encoder_name: mit_b0}"
  teacher teacher_lraspp camvid/teacher_deeplabv3plus_mobilenetv2 "${whole[@]}" \
    "teacher={source: torchvision, arch: lraspp_mobilenet_v3_large}"
  teacher teacher_small camvid/teacher_deeplabv3plus_mobilenetv2 "${whole[@]}" \
    "teacher={source: smp, arch: DeepLabV3Plus, encoder_name: tu-test_resnet, decoder_channels: 64, $unscaled}"
  teacher teacher_pspnet camvid/teacher_deeplabv3plus_mobilenetv2 "${whole[@]}" \
    "teacher={source: smp, arch: PSPNet, encoder_name: resnet34}"
}

students() {
  local seed first=${SEEDS%% *} recipe=camvid/recommended_cpu_30min cut=() deep=()
  local small="student={source: smp, arch: DeepLabV3Plus, encoder_name: timm-mobilenetv3_small_100}"
  [ -n "$SMOKE" ] && cut=(student.rehearsal=2) GAME=3 RECIPE=3
  [ "$SMOKE" = cpu ] && cut+=(student.images=4)
  deep=("${cut[@]}" "image_size=[128, 128]" "progressive_sizes=[[64, 64], [96, 96], [128, 128]]" logit_adjustment=0.5)
  [ "$SMOKE" = cpu ] && deep+=("progressive_sizes=[[16, 16], [32, 32]]")
  for seed in $SEEDS; do student "random_seed$seed" teacher_familiar $recipe "seed=$seed"; done
  for of in $foreign; do student "random_${of}_seed$first" "teacher_$of" $recipe "seed=$first"; done
  for seed in $SEEDS; do
    student "resnet_cut_50_seed$seed" teacher_resnet camvid/cut_50 "seed=$seed" ${cut[@]+"${cut[@]}"}
    student "resnet_cut_seed$seed" teacher_resnet street_scenes/cut_deep student.macs=0.127 "seed=$seed" ${deep[@]+"${deep[@]}"}
  done
  student game_paper teacher_resnet camvid/dfad_paper_deeplabv3_r50_mobilenetv2 iterations="$GAME" \
    schedule.every=$((GAME / 3 + 1)) evaluation.every=200
  for seed in $SEEDS; do
    student "random_gpu_seed$seed" teacher_familiar camvid/recommended_gpu_20min "$small" iterations="$RECIPE" evaluation.every=300 \
      save_every=100 "seed=$seed"
  done
  student "segformer_cut_50_seed$first" teacher_segformer camvid/cut_50 "seed=$first" ${cut[@]+"${cut[@]}"}
  for seed in $SEEDS; do
    for images in voc scenes; do
      student "${images}_seed$seed" teacher_familiar $recipe "transfer_images=$data/$images" "seed=$seed"
    done
    for of in $foreign; do student "random_${of}_seed$seed" "teacher_$of" $recipe "seed=$seed"; done
  done
  wait
}

# row SETTING TEACHER RUNS: the runs with so many seeds as are there
row() {
  local runs=()
  for run in "$out/$3"_seed[0-9] "$out/$3"; do [ -e "$run.done" ] && runs+=("$run"); done
  [ ${#runs[@]} -gt 0 ] || return 0
  part "row_$1" $PYTHON -m dfad_seg compare "${runs[@]}" --split test --teacher "$out/$2" --setting "$1" \
    --results "$out/results.json"
}

rows() {
  row camvid-random-gpu-500 teacher_familiar random
  row camvid-random-gpu teacher_familiar random_gpu
  row camvid-transfer-unrelated teacher_familiar voc
  row camvid-transfer-related teacher_familiar scenes
  for of in $foreign; do row "foreign-$of" "teacher_$of" "random_$of"; done
  row camvid-segformer-cut-50 teacher_segformer segformer_cut_50
  row camvid-resnet-cut-50 teacher_resnet resnet_cut_50
  row camvid-resnet-cut teacher_resnet resnet_cut
  row camvid-resnet-paper teacher_resnet game_paper
}

for name in $parts; do "$name"; done
# What is small enough to take home.
(cd "$out" && find . -size -1000k \( -name '*.json*' -o -name '*.log' -o -name '*.yaml' \) -print0 |
  tar --null -czf visit.tgz -T -)
