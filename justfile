# The menu of this checkout: `just` lists it. Each recipe is one script or command, which works
# without just too.

# List the recipes.
_menu:
    @just --list --unsorted

# Build a profile: release, quickstart or dev.
build profile="release":
    scripts/build {{profile}}

# From a fresh machine to three jobs that ran.
quickstart profile="quickstart":
    scripts/quickstart {{profile}}

# Every check and every suite, or the tests whose names contain NAME.
test name="":
    {{ if name == "" { "scripts/test" } else { "scripts/test " + quote(name) } }}

# Format, spelling, scripts, dependencies, clippy; or some of these checks.
lint *checks:
    scripts/lint {{checks}}

# Write the generated parts of docs/ again.
docs:
    cargo xtask docs

# Check that the generated parts of docs/ are current.
docs-check:
    cargo xtask docs --check

# Spelling of every file.
typos:
    scripts/lint typos

# Hostile bytes for decoders with libFuzzer: wire, frames, names or displays.
fuzz target seconds="60":
    scripts/fuzz {{target}} {{seconds}}

# One benchmark beside its peers: latency, throughput, soak, queue, fleet or inference.
bench name *options:
    scripts/bench {{name}} {{options}}

# Ten thousand jobs while workers and Redis are killed.
chaos *options:
    scripts/chaos {{options}}
