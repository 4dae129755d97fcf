#!/usr/bin/env bash
# Rebuilds the packaged small models from nothing: renders, the VAE, tiny-sd, tiny-marigold-depth.
# Resumable: every step that is committed is used again. Two to three hours on two CPU cores with
# AMX; the recipes compute in bf16, which CPUs without it are slow at: TRAIN_FLAGS="--precision fp32"
# there.
#   build_bases.sh [WORK_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-build/bases}
python=${PYTHON:-.venv/bin/python}
scenes_indoor=${SCENES_INDOOR:-500}
scenes_street=${SCENES_STREET:-250}
size="--height 128 --width 160"
render="--frames-per-scene 4 $size --samples-per-pixel 4 --frames-per-part 40"
render_more="--frames-per-scene 2 $size --samples-per-pixel 4 --frames-per-part 40"
held_out="--frames-per-scene 4 $size --samples-per-pixel 8 --frames-per-part 48"

$python pipelines/prepare.py synthetic-indoor --out "$work/indoor" --num-scenes "$scenes_indoor" --seed 100 $render
$python pipelines/prepare.py synthetic-indoor --out "$work/indoor-b" --num-scenes "$scenes_indoor" --seed 300 $render
$python pipelines/prepare.py synthetic-street --out "$work/street" --num-scenes "$scenes_street" --seed 200 $render
# The depth model sees two views each of more scenes.
while read -r name family scenes seed; do
  $python pipelines/prepare.py "synthetic-$family" --out "$work/$name" --num-scenes "$scenes" --seed "$seed" $render_more </dev/null
done <<END
rooms-1 indoor $((scenes_indoor * 2)) 100
rooms-2 indoor $((scenes_indoor * 8 / 5)) 300
rooms-3 indoor $((scenes_indoor * 8 / 5)) 500
streets-1 street $((scenes_street * 2)) 200
streets-2 street $((scenes_street * 4 / 5)) 400
END
$python pipelines/prepare.py synthetic-indoor --out "$work/indoor-test" --num-scenes 24 --seed 900 $held_out
$python pipelines/prepare.py synthetic-street --out "$work/street-test" --num-scenes 24 --seed 900 $held_out

vae_data="--data $work/indoor --data $work/street --weight 2 --weight 1"
data="--data $work/indoor --data $work/indoor-b --data $work/street --weight 1 --weight 1 --weight 1"
more_data=""
for share in rooms-1:20 rooms-2:16 rooms-3:16 streets-1:16 streets-2:6; do
  more_data+=" --data $work/${share%:*} --weight ${share#*:}"
done
panel="--panel-data $work/indoor-test --panel-data $work/street-test ${TRAIN_FLAGS:-}"
$python pipelines/train.py base-autoencoder $vae_data $panel --out "$work/vae"
$python pipelines/train.py base-image-diffusion --base "$work/vae" $data $panel --out "$work/tiny-sd"
$python pipelines/train.py base-depth-diffusion --base "$work/tiny-sd" $more_data $panel --out "$work/tiny-marigold-depth"
$python tools/pack_bases.py "$work/tiny-sd" "$work/tiny-marigold-depth"
$python benchmarks/base_models.py "$work/indoor-test" "$work/street-test"
