#!/usr/bin/env bash
# `make image`: builds the image of the services under a tag of this revision, and has .env name it. The images of former
# revisions stay, so one line in .env goes back to them. Arguments go to `docker build`.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -e .env ] || { echo "There is no .env; make env writes it." >&2; exit 1; }

revision=$(git rev-parse --short=12 HEAD)
[ -z "$(git status --porcelain --untracked-files=no)" ] || revision=$revision-changed
image=tickpipe:$revision
base=$(sed -n 's/^TICKPIPE_PYTHON_IMAGE=//p' .env | tail -n 1)
docker build --tag "$image" --build-arg "REVISION=$(git rev-parse HEAD)" ${base:+--build-arg "PYTHON_IMAGE=$base"} "$@" .

former=$(sed -n 's/^TICKPIPE_IMAGE=//p' .env | tail -n 1)
sed -i '/^TICKPIPE_IMAGE=/d' .env
echo "TICKPIPE_IMAGE=$image" >> .env
echo "Built $image, which .env names now${former:+; before it was $former}. docker compose up -d --wait starts it."
