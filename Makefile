# Each target first sets up what it needs, in a virtual environment; nothing here needs root.
#
#   make demo [INPUT=folder or bag]    make test    make setup    make lint
#
ROS ?= kilted# the distribution to set up: kilted or jazzy
PYTHON3 ?= python3# the interpreter to set up with: Python 3.10 to 3.12

VENV := .venv$(if $(filter-out kilted,$(ROS)),-$(ROS))
PYTHON := $(VENV)/bin/python

# Tools that read the ament index find the virtual environment there.
export AMENT_PREFIX_PATH := $(abspath $(VENV))
# A sourced ROS installation would mix its modules and libraries with those of the environment.
ifneq ($(ROS_DISTRO),)
unexport ROS_DISTRO PYTHONPATH LD_LIBRARY_PATH CMAKE_PREFIX_PATH
endif
# Containers often set this: each process would compile torch anew, 4.5 s instead of 2.4 to import it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup test test-slow fuzz soak coverage lint demo clean

setup:
	@command -v $(PYTHON3) >/dev/null || { echo 'set-up: there is no $(PYTHON3); install Python 3.10 to 3.12 or name one: make setup PYTHON3=…' >&2; exit 1; }
	@$(PYTHON3) underlay/bootstrap.py --ros $(ROS) --venv $(VENV)

test: setup
	$(VENV)/bin/pytest $(ARGS)

test-slow: setup
	$(VENV)/bin/pytest -m slow $(ARGS)

fuzz: setup  # the hostile inputs of the suite 25-fold, and new ones on each run
	FUZZ_SCALE=25 $(VENV)/bin/pytest -m fuzz $(ARGS)

soak: setup  # 20,000 frames while memory stays flat; SOAK_FRAMES=n for fewer
	$(VENV)/bin/pytest -m slow test/ros/test_soak.py -s $(ARGS)

coverage: setup  # branches of core, runtime and ros; fails below 90 %
	$(VENV)/bin/pytest --cov --cov-report=term:skip-covered $(ARGS)

lint: setup
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy tag_perception

demo: setup
	@$(PYTHON) -m tag_perception demo $(if $(INPUT),--input '$(INPUT)') --out out/demo

clean:  # keeps the virtual environments; `rm -rf .venv*` removes those
	rm -rf build install log out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
