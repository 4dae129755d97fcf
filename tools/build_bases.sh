#!/usr/bin/env bash
# Rebuilds the packaged small models from nothing: renders, the VAE, tiny-sd, tiny-marigold-depth.
# Resumable: every step that is committed is used again. Two hours on two CPU cores with AMX; the
# recipes compute in bf16, which CPUs without it are slow at: TRAIN_FLAGS="--precision fp32" there.
#   build_bases.sh [WORK_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-build/bases}
python=${PYTHON:-.venv/bin/python}
scenes_indoor=${SCENES_INDOOR:-500}
scenes_street=${SCENES_STREET:-250}
frames="--frames-per-scene 4 --height 128 --width 160"
render="$frames --samples-per-pixel 4 --frames-per-part 40"
held_out="$frames --samples-per-pixel 8 --frames-per-part 48"

$python pipelines/prepare.py synthetic-indoor --out "$work/indoor" --num-scenes "$scenes_indoor" --seed 100 $render
$python pipelines/prepare.py synthetic-indoor --out "$work/indoor-b" --num-scenes "$scenes_indoor" --seed 300 $render
$python pipelines/prepare.py synthetic-street --out "$work/street" --num-scenes "$scenes_street" --seed 200 $render
$python pipelines/prepare.py synthetic-indoor --out "$work/indoor-test" --num-scenes 24 --seed 900 $held_out
$python pipelines/prepare.py synthetic-street --out "$work/street-test" --num-scenes 24 --seed 900 $held_out

vae_data="--data $work/indoor --data $work/street --weight 2 --weight 1"
data="--data $work/indoor --data $work/indoor-b --data $work/street --weight 1 --weight 1 --weight 1"
panel="--panel-data $work/indoor-test --panel-data $work/street-test ${TRAIN_FLAGS:-}"
$python pipelines/train.py base-autoencoder $vae_data $panel --out "$work/vae"
$python pipelines/train.py base-image-diffusion --base "$work/vae" $data $panel --out "$work/tiny-sd"
$python pipelines/train.py base-depth-diffusion --base "$work/tiny-sd" $data $panel --out "$work/tiny-marigold-depth"
$python tools/pack_bases.py "$work/tiny-sd" "$work/tiny-marigold-depth"
$python benchmarks/base_models.py "$work/indoor-test" "$work/street-test"
