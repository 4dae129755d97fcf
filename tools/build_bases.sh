#!/usr/bin/env bash
# Rebuilds the packaged small models from nothing: renders, the VAE, tiny-sd, tiny-marigold-depth.
# Resumable: every step that is committed is used again. Two hours on two CPU cores with AMX; the
# recipes compute in bf16, which CPUs without it are slow at: TRAIN_FLAGS="--precision fp32" there.
#   build_bases.sh [WORK_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-build/bases}
python=${PYTHON:-.venv/bin/python}
size="--height 128 --width 160"
vae_frames="--frames-per-scene 4 $size --samples-per-pixel 4 --frames-per-part 40"
frames="--frames-per-scene 2 $size --samples-per-pixel 4 --frames-per-part 40"
held_out="--frames-per-scene 4 $size --samples-per-pixel 8 --frames-per-part 48"

# The VAE learns from fewer scenes; of the others, few views of many rooms teach more than the reverse.
$python pipelines/prepare.py synthetic-indoor --out "$work/vae-indoor" --num-scenes 500 --seed 100 $vae_frames
$python pipelines/prepare.py synthetic-street --out "$work/vae-street" --num-scenes 250 --seed 200 $vae_frames
$python pipelines/prepare.py synthetic-indoor --out "$work/indoor" --num-scenes 1000 --seed 100 $frames
$python pipelines/prepare.py synthetic-indoor --out "$work/indoor-b" --num-scenes 800 --seed 300 $frames
$python pipelines/prepare.py synthetic-street --out "$work/street" --num-scenes 500 --seed 200 $frames
$python pipelines/prepare.py synthetic-indoor --out "$work/indoor-test" --num-scenes 24 --seed 900 $held_out
$python pipelines/prepare.py synthetic-street --out "$work/street-test" --num-scenes 24 --seed 900 $held_out

vae_data="--data $work/vae-indoor --data $work/vae-street --weight 2 --weight 1"
data="--data $work/indoor --data $work/indoor-b --data $work/street --weight 1 --weight 1 --weight 1"
panel="--panel-data $work/indoor-test --panel-data $work/street-test ${TRAIN_FLAGS:-}"
$python pipelines/train.py base-autoencoder $vae_data $panel --out "$work/vae"
$python pipelines/train.py base-image-diffusion --base "$work/vae" $data $panel --out "$work/tiny-sd"
$python pipelines/train.py base-depth-diffusion --base "$work/tiny-sd" $data $panel --out "$work/tiny-marigold-depth"
$python tools/pack_bases.py "$work/tiny-sd" "$work/tiny-marigold-depth"
$python benchmarks/base_models.py "$work/indoor-test" "$work/street-test"
