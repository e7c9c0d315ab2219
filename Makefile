PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow coverage bench-cli bench-earlier bench-homes bench-job bench-trials bench-stream bench-audio bench-clips bench-sweep bench-augment bench-scale bench-fleet bench-shuffle bench-step bench-steps bench-objectives bench-pieces bench-masking check-gpu lint types catalogue picture wheel lock clean

demo: .venv/ready
	$(BIN)/selfsup sweep demo

test: .venv/ready  # a file at a time on each of three workers of two cores, since the one of all tests of Ray waits; compiled once
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

test-slow: .venv/ready
	$(BIN)/pytest -m slow

coverage: .venv/ready  # of the tests' own processes and those that they fork; lines that no test ran in build/coverage
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(addprefix --cov=,platform methods pipelines sweeps) \
		--cov-report=term:skip-covered --cov-report=html:build/coverage

REVISION ?= HEAD~1
bench-cli: .venv/ready  # CPU of commands beside those of REVISION, and of `--help` beside optuna's; half an hour
	$(BIN)/python tests/benchmarks/cli.py $(REVISION)

WHAT ?= demo
bench-earlier: .venv/ready  # WHAT (demo, report, trials or tests) beside that of REVISION in five pairs; half an hour to two hours
	$(BIN)/python tests/benchmarks/earlier.py $(REVISION) $(WHAT)

bench-homes: .venv/ready  # CPU of commands over homes of 10^3, 10^4 and 10^5 finished stages; half an hour
	mkdir -p build && $(BIN)/python tests/benchmarks/homes.py

bench-job: .venv/ready  # clock, CPU and memory of a job beside a plain loop of other libraries; 10 minutes
	$(BIN)/python tests/benchmarks/job.py

bench-trials: .venv/ready  # trials in warm slots and fresh ones beside a loop of Optuna in one process; 12 minutes
	PATH=$$PWD/$(BIN):$$PATH $(BIN)/python tests/benchmarks/trials.py

bench-stream: .venv/ready  # the training stream beside the limit of the machine, webdataset, Ray Data and peers of the extra `bench`; 40 minutes
	$(BIN)/python tests/benchmarks/stream.py build/bench

bench-audio: .venv/ready  # seconds of audio a CPU second, beside torchaudio's and librosa's of the extra `bench`; 10 minutes
	$(BIN)/python tests/benchmarks/audio.py build/bench

bench-clips: .venv/ready  # clips a second of CPU beside torchcodec of the extra `bench`, in DataLoader; 10 minutes
	$(BIN)/python tests/benchmarks/clips.py build/clips

bench-sweep: .venv/ready  # CPU of 1 to 8 readers of one stream, shared and private; 7 minutes
	$(BIN)/python tests/benchmarks/sweep.py build/bench

bench-augment: .venv/ready  # photometric operations beside torchvision's
	$(BIN)/python tests/benchmarks/augment.py

bench-scale: .venv/ready  # planning and reading of 1e5 to 1e9 samples
	$(BIN)/python tests/benchmarks/scale.py

bench-fleet: .venv/ready  # 8 nodes simulated, and what 64 would ask of stores, MLflow and the driver; 10 minutes
	$(BIN)/python tests/benchmarks/fleet.py

bench-shuffle: .venv/ready  # the order against a full permutation and webdataset's buffers
	$(BIN)/python tests/benchmarks/shuffle.py

bench-step: .venv/ready  # training steps beside transformers' and lightly's
	$(BIN)/python tests/benchmarks/step.py

bench-steps: .venv/ready  # a training step of each objective beside lightly's example of it; 10 minutes
	$(BIN)/python tests/benchmarks/steps.py

bench-objectives: .venv/ready  # every objective on the photographs, 3 seeds each; an hour and a half on two cores
	$(BIN)/python tests/benchmarks/objectives.py

bench-pieces: .venv/ready  # memory and time of a contrastive step, whole and in pieces; 5 minutes
	$(BIN)/python tests/benchmarks/pieces.py

bench-masking: .venv/ready  # time and memory of MAE's step against its mask ratio, and their picture; 3 minutes
	$(BIN)/python tests/benchmarks/masking.py 20 build/masking.png

CHECKER ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
check-gpu:  # values, speed and input wait on a GPU, in ten minutes, into build/gpu; installs nothing: tests/gpu/RESULTS.md
	$(CHECKER) tests/gpu $(ARGS)

lint: .venv/ready
	$(BIN)/ruff check && $(BIN)/ruff format --check

types: .venv/ready  # of the installed package, as a user's type checker sees it, and of what tests share
	rm -rf build/types build/lib && $(BIN)/uv pip install -q --no-deps --target build/types .
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml --python-executable ../../$(BIN)/python -p selfsup
	cd build/types && MYPYPATH=. ../../$(BIN)/mypy --config-file ../../pyproject.toml --python-executable ../../$(BIN)/python ../../tests/helpers/*.py

picture: .venv/ready  # infra/report.png: the top of the demo's report, as the README shows it; needs chromium
	$(BIN)/selfsup report demo
	chromium --headless --no-sandbox --hide-scrollbars --window-size=1280,1480 --screenshot=infra/report.png \
		"file://$${SELFSUP_HOME:-$$HOME/.selfsup}/reports/demo/report.html"
	$(BIN)/python -c "from PIL import Image as i; i.open('infra/report.png').convert('RGB').quantize(64).save('infra/report.png', optimize=True)"

wheel: .venv/ready
	$(BIN)/python -c "from pathlib import Path; from selfsup.pipelines.cluster.wheel import build_wheel as make; print(make(Path(), Path('dist')))"

catalogue: .venv/ready  # methods/README.md and sweeps/README.md, of the code as it is
	$(BIN)/python -c "from pathlib import Path; from selfsup.describe import page; Path('methods/README.md').write_text(page())"
	$(BIN)/python -c "from pathlib import Path; from selfsup.sweeps.spec.reference import page; Path('sweeps/README.md').write_text(page())"

lock: .venv/ready
	$(BIN)/uv pip compile -q --universal --extra test --no-header --no-annotate -o infra/requirements.lock pyproject.toml

.venv/ready: pyproject.toml infra/requirements.lock
	$(PYTHON) -m venv .venv && $(BIN)/pip install -q --disable-pip-version-check uv
	$(BIN)/uv pip install -q --compile-bytecode -r infra/requirements.lock && $(BIN)/uv pip install -q --no-deps -e .
	touch $@

clean:
	rm -rf build dist .venv
