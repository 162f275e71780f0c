#!/bin/sh
# Everything a lent GPU needs in one ignored folder: sh benchmarks/pack_lease.sh REFERENCE/cifar10 MAIN/.lease
# Three parts of the images, for three calls of at most 64 MiB each; `site` (packages missing there) is left alone.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
from=$1 to=$2
mkdir -p "$to/code" "$to/data1" "$to/data2" "$to/data3"
rm -rf "$to/code/src" && mkdir "$to/code/src"
cp -r "$here/src/crossclass" "$to/code/src/"
find "$to/code" -name __pycache__ -prune -exec rm -rf {} +
cp "$here"/benchmarks/lease*.py "$here/benchmarks/device_check.py" "$to/code/"
[ -f "$here/benchmarks/cifar10.sha256.json" ] && cp "$here/benchmarks/cifar10.sha256.json" "$to/code/"
for k in 1 2 3; do cp -f "$from"/*_labels.npz "$to/data$k/"; done
cp -f "$from"/test_*.webp "$from"/train_0*.webp "$to/data1/"
cp -f "$from"/train_1*.webp "$from"/train_2*.webp "$to/data2/"
cp -f "$from"/train_3*.webp "$from"/train_4*.webp "$to/data3/"
chmod -R u+w "$to"
du -sm "$to"/*
