#!/bin/sh
# Puts Debian's prometheus and promtool into a folder, without installing them and without being root:
#     tests/deploy/get_prometheus.sh FOLDER
# Where they are installed, or where there is no apt, the folder stays empty.
set -eu
new=$(mktemp -d "$(cd "$(dirname "$1")" && pwd)/prometheus-XXXXXX")
trap 'rm -rf "$new"' EXIT
mkdir "$new/files"
if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    :
elif command -v apt-get >/dev/null && command -v dpkg >/dev/null; then
    cd "$new"
    # A machine's own lists may be missing or old; ours are made beside them, which needs no rights.
    apt-get -qq download prometheus >/dev/null 2>&1 || {
        mkdir -p lists/partial cache/archives/partial
        own="-o Dir::State::Lists=$new/lists -o Dir::Cache=$new/cache -o APT::Sandbox::User="
        # shellcheck disable=SC2086
        apt-get -qq $own update && apt-get -qq $own download prometheus
    }
    dpkg -x prometheus_*.deb files
    cd - >/dev/null
else
    echo "no prometheus, promtool or apt here: tests of deploy/monitoring will be skipped" >&2
fi
mv "$new/files" "$1"
