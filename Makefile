.DEFAULT_GOAL := help
VENV := .venv/bin
.PHONY: help setup demo serve test fmt lint types layers unit policy-test bench schemas

help: ## Show what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

.venv/.ready: requirements-dev.lock pyproject.toml scripts/setup
	@sh scripts/setup

setup: .venv/.ready ## Leave a .venv with everything in it

demo: setup ## See Callgate work: every situation, with its decision trail
	@$(VENV)/callgate demo

serve: setup ## Serve with the embedded defaults on 127.0.0.1:8787
	@$(VENV)/callgate serve

test: lint types layers unit ## Everything that CI runs

fmt: setup ## Format the code
	@$(VENV)/ruff format -q . && $(VENV)/ruff check -q --fix .

lint: setup ## Style and common mistakes
	@$(VENV)/ruff format --check -q . && $(VENV)/ruff check -q .

types: setup ## mypy, strict
	@$(VENV)/mypy

layers: setup ## The import contracts
	@$(VENV)/lint-imports --no-logo

unit: setup ## The test suite
	@$(VENV)/pytest -n 2 -q

policy-test: setup ## The tests of the starter policies
	@$(VENV)/pytest -q tests/policies

bench: setup ## Cost of Callgate against a bare pass-through, as ratios
	@$(VENV)/python -m bench

schemas: setup ## Write the generated JSON Schemas and docs/configuration.md's tables anew
	@PYTHONPATH=. $(VENV)/python tests/config/reference.py
	@$(VENV)/callgate schema tool > schemas/tool.schema.json
