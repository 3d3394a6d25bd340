#!/bin/sh
# Re-runs everything: tokenizer, encoded clips, transformers, judge, export. Work files go to $MOVING_WORK (default
# /tmp/moving); a stopped run resumes where it last saved. The package must be built. FASHION_PRECISION=float32 where there is no bfloat16.
set -e
cd "$(dirname "$0")"
PYTHON=${PYTHON:-/usr/bin/python3}
export PYTHONDONTWRITEBYTECODE=1
export OMP_NUM_THREADS="${FASHION_THREADS:-1}" MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=99999999999

$PYTHON judge.py --steps 6000
$PYTHON train_tokenizer.py --steps 3000
$PYTHON export.py
$PYTHON encode.py
$PYTHON train_videos.py --n 4 --steps 2400
$PYTHON train_videos.py --n 16 --steps 650 --start 4
$PYTHON train_videos.py --n 1 --steps 400 --start 4
$PYTHON export.py
node measure.js
