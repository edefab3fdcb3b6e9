#!/bin/sh
# Does what docs/plugin-author.md says, block by block, in an empty directory with an empty HOME (but cargo's and rustup's
# caches), and prints the time: a plugin from nothing, outside of the project.
#
#   tests/scripts/author.sh             up to the component and its tests
#   tests/scripts/author.sh --cluster   and then reconciling, on a real control plane with a real host
set -eu
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-$(pwd)/target}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/reef-author-XXXXXX")
host=
plane=

tidy() {
    status=$?
    [ -z "$host" ] || { kill "$host" 2>/dev/null && wait "$host" 2>/dev/null; } || true
    [ "$status" -eq 0 ] || [ ! -e "$scratch/host.log" ] || tail -n 40 "$scratch/host.log" >&2
    [ -z "$plane" ] || "$target/debug/reef-testbed" down "$plane" || true
    rm -rf "$scratch"
    exit "$status"
}
trap tidy EXIT
trap 'exit 130' INT TERM

# The blocks of the page as a shell script: `run` or `cluster` blocks as they are, `file=` blocks as here-documents, and of
# `expect=` blocks a comparison with the file, comments aside.
blocks() {
    awk -v take="$1" '
        /^```/ && inside { if (file) print "END_OF_BLOCK"; inside = file = 0; next }
        /^```[a-z]+ / {
            inside = 1; printing = 0
            if ($2 == take) printing = 1
            else if (take == "run" && sub(/^file\+=/, "", $2)) { printing = file = 1; print "cat >> " $2 " <<\047END_OF_BLOCK\047" }
            else if (take == "run" && sub(/^expect=/, "", $2)) {
                printing = file = 1
                print "grep -v \047^#\047 " $2 " | diff /dev/fd/3 - 3<<\047END_OF_BLOCK\047"
            }
            else if (take == "run" && sub(/^file=/, "", $2)) { printing = file = 1; print "cat > " $2 " <<\047END_OF_BLOCK\047" }
            next
        }
        /^```/ { inside = 1; printing = 0; next }
        inside && printing { print }
    ' docs/plugin-author.md
}

# A clean environment: what an author has, and of this checkout only `reef`.
author() {
    env -i HOME="$scratch/home" PATH="$target/debug:$scratch/bin:$PATH" TERM="${TERM:-dumb}" \
        CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}" RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}" RUSTUP_TOOLCHAIN="$toolchain" \
        KUBECONFIG="$scratch/kubeconfig" PLUGIN_DIR="$scratch/plugins" REGISTRY="$registry" TRUST_POLICY="$scratch/trust.yaml" \
        sh -eux "$1"
}

# The control plane, a registry, Reef's resources and rights, and a host.
cluster() {
    "$target/debug/reef-testbed" tools >"$scratch/tools"
    ln -s "$(awk '$1 == "kubectl" { print $3 }' "$scratch/tools")" "$scratch/bin/kubectl"
    ln -s "$(awk '$1 == "cosign-v2" { print $3 }' "$scratch/tools")" "$scratch/bin/cosign"
    PATH="$scratch/bin:$PATH"
    plane="$scratch/plane"
    "$target/debug/reef-testbed" up "$plane" >/dev/null
    registry=$(cat "$plane/registry")
    ln -s "$plane/admin.kubeconfig" "$scratch/kubeconfig"
    admin() { kubectl --kubeconfig "$scratch/kubeconfig" "$@"; }
    admin create namespace reef-system
    admin apply -f crds/
    admin apply -n reef-system -f deploy/host-rbac.yaml
    admin create clusterrolebinding reef-host-user --clusterrole=reef-host --user=reef-host
    admin create rolebinding -n reef-system reef-host-user --role=reef-host --user=reef-host
    for crd in crds/*.yaml; do admin wait --for=condition=Established -f "$crd" --timeout=30s; done
    cat >"$scratch/trust.yaml" <<END
apiVersion: reef.dev/v1alpha1
kind: TrustPolicy
rules: [{ namespaces: ["*"], files: allowed, configMaps: allowed }]
END
    "$target/debug/reef" host --kubeconfig "$plane/host.kubeconfig" --plugin-dir "$scratch/plugins" \
        --registries-file "$plane/registries.yaml" --trust-policy "$scratch/trust.yaml" \
        --cache-dir "$scratch/cache" --admin-address 127.0.0.1:0 >"$scratch/host.log" 2>&1 &
    host=$!
}

toolchain=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
registry=
mkdir -p "$scratch/bin" "$scratch/home" "$scratch/work" "$scratch/plugins" "$scratch/cache"
blocks run >"$scratch/run.sh"
blocks cluster >"$scratch/cluster.sh"
begin=$(date +%s)
(cd "$scratch/work" && author ../run.sh)
built=$(date +%s)
size=$(wc -c <"$scratch/work/banner/target/wasm32-wasip2/release/banner.wasm")
echo "author: from nothing to a tested component of $size bytes in $((built - begin)) s"
if [ "${1:-}" = --cluster ]; then
    cluster
    ready=$(date +%s)
    (cd "$scratch/work/banner" && author ../../cluster.sh)
    echo "author: installed, reconciled, and woken by what it read in $(($(date +%s) - ready)) s"
fi
