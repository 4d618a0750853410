.PHONY: env test-compose

env: ## write .env for docker compose with fresh random secrets; an existing one is left as it is
	@compose/env.sh

test-compose: setup ## try `docker compose up` on a real engine, which it installs (Debian, root), without a registry
	@tests/compose/run.sh
