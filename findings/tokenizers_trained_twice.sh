#!/usr/bin/env bash
# Trained twice on the same text, WordPiece and CLIP's kind of BPE give tokens other numbers each time in tokenizers.
#
# Versions: tokenizers 0.23.3, Python 3.11.
# Expected: the same text and settings give the same tokenizer; there is no seed to set. Plain BPE and Unigram do so.
# Happens: with an end-of-word suffix, as CLIP's BPE has one, or a prefix of continuing parts, as WordPiece, six trainings
#   have six different numberings. The letters come first in an order that is random, and ties between merges go by these
#   numbers, so that with a prefix some vocabularies differ in their tokens, too.
# Why it matters: a text encoder's rows belong to numbers. Whoever trains the tokenizer once more from the same captions,
#   since only the recipe was kept, reads another word in every row of a checkpoint, without an error; two arms of a sweep
#   that each train theirs differ by more than the seed. Train it once, keep the file, and compare runs by its digest.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check tokenizers==0.23.3 2>/dev/null
cat > see.py <<'PY'
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

TEXT = [
    "the cat sat on the mat with the other cats",
    "a red box left of a blue sphere",
    "the sphere is behind a green cone",
] * 50
SIZE = {"vocab_size": 120, "show_progress": False, "special_tokens": ["[UNK]"]}
KINDS = {
    "BPE": (models.BPE, trainers.BpeTrainer, {}),
    "BPE with </w>": (models.BPE, trainers.BpeTrainer, {"end_of_word_suffix": "</w>"}),
    "BPE with ##": (models.BPE, trainers.BpeTrainer, {"continuing_subword_prefix": "##"}),
    "WordPiece": (models.WordPiece, trainers.WordPieceTrainer, {"continuing_subword_prefix": "##"}),
}


def vocabulary(model, trainer, options):
    tokenizer = Tokenizer(model(unk_token="[UNK]", **options))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(TEXT, trainer(**SIZE, **options))
    return tokenizer.get_vocab()


for name, kind in KINDS.items():
    trained = [vocabulary(*kind) for _ in range(6)]
    numberings = {tuple(sorted(tokens.items())) for tokens in trained}
    tokens = {tuple(sorted(tokens)) for tokens in trained}
    print(f"{name}: of 6 trainings {len(numberings)} numberings, {len(tokens)} sets of tokens")
    assert (len(numberings) > 1) == (name != "BPE"), "the behaviour has changed"
PY
env/bin/python see.py
