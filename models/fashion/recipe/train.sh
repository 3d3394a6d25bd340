#!/bin/sh
# Re-runs everything: tokenizer, encoded data set, transformers, classifier, export, measurement.
# Work files go to $FASHION_WORK (default /tmp/fashion); a stopped run goes on where it last saved.
# Delete that folder to start over. One thread; FASHION_THREADS=8 where there are eight cores.
set -e
cd "$(dirname "$0")"
PYTHON=${PYTHON:-/usr/bin/python3}
export PYTHONDONTWRITEBYTECODE=1
# Keep freed memory in the process: a step's buffers are the same size every time, and page faults cost a third.
export OMP_NUM_THREADS="${FASHION_THREADS:-1}" MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=99999999999

$PYTHON train_tokenizer.py --steps 1800
$PYTHON export.py
$PYTHON encode.py
$PYTHON train_transformer.py --n 4 --steps 5000
$PYTHON train_transformer.py --n 16 --steps 3200 --start 4
$PYTHON train_transformer.py --n 1 --steps 1600 --start 4
$PYTHON train_arpg.py --steps 12000 --start 4
$PYTHON classifier.py --steps 2800
$PYTHON export.py
$PYTHON measure.py --sheets "${FASHION_WORK:-/tmp/fashion}/sheets"
$PYTHON expected.py ../../../test/fixtures/fashion/expected.safetensors
