#!/usr/bin/env bash
# A hard link in a tar is no member to webdataset: the labels of a deduplicated folder are gone.
#
# Versions: webdataset 1.0.2, GNU tar 1.34, Python 3.11.
# Expected: `tar -cf shard.tar folder` of 20 images, each with a .cls file, gives 20 samples with a label each, however
#   the files lie on the disk. Python's tarfile and tar itself extract all 20 labels.
# Happens: where equal files share an inode (a folder deduplicated by rdfind, jdupes, hardlink, rsync --link-dest or a
#   package cache), tar stores the second and later ones as links to the first. webdataset passes over every member that
#   is no regular file, without a word: 20 samples, of which 2 have a label.
# Why it matters: label files are the most equal files there are. Probes are then trained on the few samples that kept
#   their label, with no error and no warning, and shards made from a copy without links give other numbers.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check webdataset==1.0.2 2>/dev/null
mkdir images
for number in $(seq -w 0 19); do
  echo "image $number" > "images/$number.jpg"
  echo $((10#$number % 2)) > "images/$number.cls"
done
cp -r images plain
for number in $(seq -w 2 19); do ln -f "images/0$((10#$number % 2)).cls" "images/$number.cls"; done
diff -r images plain
tar --sort=name -cf plain.tar -C plain .
tar --sort=name -cf linked.tar -C images .
cat > read.py <<'PY'
import tarfile

import webdataset

for name, expected in (("plain.tar", 20), ("linked.tar", 2)):
    links = sum(member.islnk() for member in tarfile.open(name))
    samples = list(webdataset.WebDataset(name, shardshuffle=False))
    labelled = sum("cls" in sample for sample in samples)
    print(f"{name}: {links} links, {len(samples)} samples, {labelled} with a label")
    assert (len(samples), labelled) == (20, expected), "the behaviour has changed"
PY
env/bin/python read.py
# Seen:
#   plain.tar: 0 links, 20 samples, 20 with a label
#   linked.tar: 18 links, 20 samples, 2 with a label
