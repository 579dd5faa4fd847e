#!/usr/bin/env bash
# What one short visit to a machine with a GPU is for: tests, throughput, a ResNet-50 teacher, students of it. Each part
# leaves its files in OUT, a part that is done is not repeated, and a training that was cut off is resumed.
#
#   benchmarks/gpu_visit.sh DATA OUT [PART ...]
#   SMOKE=gpu benchmarks/gpu_visit.sh DATA OUT        the same with a few iterations each
#   SMOKE=cpu benchmarks/gpu_visit.sh DATA OUT        and with small images, on any machine
#
# DATA holds CamVid/. Nothing is fetched. PART: tests throughput teachers cuts game rows; all by default, in this order.
# And voc, with VOCdevkit/ and weights/mobilenet_v2_imagenet.safetensors in DATA. SEEDS (0 1 2), GAME (iterations of the
# paper's method, 500), RECIPE (of the recommended one, 400), AT_ONCE (runs that share the GPU, 5).
set -u
cd "$(dirname "$0")/.."
data=$1 out=$2
shift 2
parts=${*:-tests throughput teachers cuts game rows}
PYTHON=${PYTHON:-python3} SMOKE=${SMOKE:-} SEEDS=${SEEDS:-0 1 2} AT_ONCE=${AT_ONCE:-5} GAME=${GAME:-500} RECIPE=${RECIPE:-400}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} PYTHONUNBUFFERED=1
mkdir -p "$out"
scenes=$out/street_scenes

# part NAME COMMAND...: once, with its output in OUT/NAME.log
part() {
  local name=$1 start=$SECONDS
  shift
  [ -e "$out/$name.done" ] && return 0
  if "$@" >"$out/$name.log" 2>&1; then
    touch "$out/$name.done"
    echo "$SECONDS s: $name, took $((SECONDS - start)) s"
  else
    echo "$SECONDS s: $name FAILED, see $out/$name.log"
    tail -n 3 "$out/$name.log"
    return 1
  fi
}

# Wait until fewer than AT_ONCE parts run.
slot() { while [ "$(jobs -rp | wc -l)" -ge "$AT_ONCE" ]; do wait -n; done; }

# trained NAME SPLIT CONFIG OPTION...: a run in OUT/NAME, from where it stopped, scored on SPLIT
trained() {
  local name=$1 split=$2 config=$3 resume=
  shift 3
  [ -e "$out/$name/config.yaml" ] && resume=--resume
  $PYTHON tools/train_seg.py "$config" --work-dir "$out/$name" $resume --cfg-options report=short "$@" &&
    timeout -k 5 120 $PYTHON tools/eval_miou.py "$out/$name" --split "$split" --workers 2
}

tests() {
  local some=
  [ "$SMOKE" = cpu ] && some="-k discrepancy"
  part tests timeout 100 $PYTHON -m pytest -q -x --numprocesses "$(nproc)" -m "not slow" \
    tests/objectives tests/generators tests/distill $some
}

throughput() {
  local small="--batch 32 --repeats 2 --steps 10" paper="--batch 64 --repeats 2 --steps 5" lock=(--lock "$out/gpu.lock")
  [ "$SMOKE" = cpu ] && small="--repeats 1 --steps 1 --batch 4 --size 32" paper="--repeats 1 --steps 1 --batch 2 --size 32" lock=()
  part throughput_small $PYTHON benchmarks/distil_throughput.py --pair small $small --recipe "${lock[@]}" \
    --json "$out/small_gpu.json" &
  part throughput_paper $PYTHON benchmarks/distil_throughput.py --pair paper $paper "${lock[@]}" \
    --json "$out/paper_gpu.json" &
  wait
}

camvid="dataset.root=$data/CamVid"
resnet="teacher={source: torchvision, arch: deeplabv3_resnet50}"

teachers() {
  local camvid_length=1500 scenes_length=1000 drawn="--train 800" workers=4
  if [ -n "$SMOKE" ]; then
    camvid_length=3 scenes_length=3 drawn="--train 16 --val 4 --test 4" workers=1
  fi
  part scenes $PYTHON -m dfad_seg prepare street-scenes --root "$scenes" $drawn || return
  local short="training_data.num_workers=$workers"
  part teacher_camvid trained teacher_camvid test configs/camvid/teacher_paper_deeplabv3_r50.yaml "$camvid" \
    teacher.encoder_weights=null student_optimizer.lr=0.03 iterations=$camvid_length $short save_every=500 &
  part teacher_scenes trained teacher_scenes test configs/street_scenes/teacher.yaml "dataset.root=$scenes" \
    "$resnet" iterations=$scenes_length $short evaluation.every=500 save_every=500 &
  wait
}

# Not scored here: every other size of image costs a GPU a second of choosing kernels, and VOC has hundreds.
voc() {
  local length=1500
  [ -n "$SMOKE" ] && length=3
  part teacher_voc $PYTHON tools/train_seg.py configs/voc/voc_teacher.yaml --work-dir "$out/teacher_voc" --cfg-options \
    "dataset.root=$data/VOCdevkit" "teacher.encoder_checkpoint=$data/weights/mobilenet_v2_imagenet.safetensors" \
    iterations=$length batch_size=16 "training_data.scale=[0.5, 2.0]" training_data.num_workers=4 evaluation=null save_every=500
}

cuts() {
  local tiny=() seed share
  [ -n "$SMOKE" ] && tiny=(iterations=2 student.rehearsal=2)
  [ "$SMOKE" = cpu ] && tiny+=(student.images=4 batch_size=4 "image_size=[64, 64]")
  for seed in $SEEDS; do
    for share in 0.5 0.127; do # the paper's MobileNetV2 student costs 12.7 % of its teacher
      slot
      part "scenes_${share}_seed$seed" trained "scenes_${share}_seed$seed" test configs/street_scenes/cut_50.yaml \
        "teacher.checkpoint=$out/teacher_scenes/teacher.pt" "dataset.root=$scenes" student.macs=$share seed=$seed "${tiny[@]}" &
      slot
      part "camvid_${share}_seed$seed" trained "camvid_${share}_seed$seed" test configs/camvid/cut_50.yaml \
        "teacher.checkpoint=$out/teacher_camvid/teacher.pt" "$camvid" student.macs=$share seed=$seed "${tiny[@]}" &
    done
  done
  wait
}

game() {
  local tiny=()
  [ -n "$SMOKE" ] && GAME=3 RECIPE=3
  [ "$SMOKE" = cpu ] && tiny=(batch_size=8 "image_size=[32, 32]")
  part game_paper trained game_paper test configs/camvid/dfad_paper_deeplabv3_r50_mobilenetv2.yaml "$camvid" \
    "teacher.checkpoint=$out/teacher_camvid/teacher.pt" iterations="$GAME" schedule.every=$((GAME / 3 + 1)) \
    evaluation.every=100 "${tiny[@]}" &
  part game_recipe trained game_recipe test configs/camvid/recommended_gpu_20min.yaml "$camvid" \
    "teacher.checkpoint=$out/teacher_camvid/teacher.pt" iterations="$RECIPE" evaluation.every=100 "${tiny[@]}" &
  wait
}

rows() {
  local share
  for share in 0.5 0.127; do
    for data_set in scenes camvid; do
      part "row_${data_set}_$share" $PYTHON -m dfad_seg compare "$out/${data_set}_${share}_seed"[0-9] --split test \
        --teacher "$out/teacher_$data_set" --setting "$data_set-resnet-$share" --results "$out/results.json"
    done
  done
  for share in paper recipe; do
    part "row_$share" $PYTHON -m dfad_seg compare "$out/game_$share" --split test --teacher "$out/teacher_camvid" \
      --setting "camvid-resnet-$share" --results "$out/results.json"
  done
  # What is small enough to take home.
  (cd "$out" && find . -size -1000k \( -name '*.json*' -o -name '*.log' -o -name '*.yaml' \) -print0 |
    tar --null -czf visit.tgz -T -)
}

for name in $parts; do "$name"; done
