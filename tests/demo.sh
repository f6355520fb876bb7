#!/usr/bin/env bash
# The demonstration: two snapshots of a Docker volume with changes between, the first restored as of its time and compared,
# the repository verified, and what each step cost. `make demo` builds the program and runs this.
#
#   VOLUME=name   use this volume; it is only read
#   DIR=path      use this directory; it is only read
#   SCALE=n       size of the PostgreSQL database that is made otherwise, 16 MB each (default 10)
#   TRANSACTIONS=n  transactions between the snapshots (default 10000)
#   FILES=1       take files of this host although PostgreSQL is installed
#   KEEP=1        leave the repository and the restored files where they are
#
# Everything is made in one temporary folder (below TMPDIR) and one volume, and removed at the end, also after a failure.
set -euo pipefail

icecore=${ICECORE:-target/release/icecore}
scale=${SCALE:-10}
transactions=${TRANSACTIONS:-10000}
work=$(mktemp -d "${TMPDIR:-/tmp}/icecore-demo.XXXXXX")
made_volume=
postgres_bin=

main() {
    [ -x "$icecore" ] || fail "there is no program at $icecore; build it with 'make build'"
    chmod 755 "$work"
    choose_source
    export ICECORE_REPO=$work/repository ICECORE_STATE_DIR=$work/state
    ICECORE_PASSWORD=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    export ICECORE_PASSWORD

    say "1. make an encrypted repository"
    run init "$icecore" init --quiet --json
    say "2. the first snapshot of $source"
    run first "$icecore" snapshot "$source" --json
    time_first=$(field first snapshots.0.time)
    id_first=$(field first snapshots.0.id)
    keep_copy
    say "3. $change_words"
    change
    say "4. the second snapshot"
    run second "$icecore" snapshot "$source" --json
    say "5. the snapshots"
    echo "\$ icecore snapshots"
    "$icecore" snapshots
    say "6. restore $source as of $time_first"
    run restore "$icecore" restore "$source" --at "$time_first" --to "$work/restored" --json
    compare
    say "7. verify: read every byte of every pack, open every chunk"
    run verify "$icecore" verify --data --json
    say "8. the repository"
    run stats "$icecore" stats --json
    table
}

# --- where the data comes from

choose_source() {
    if [ -n "${VOLUME:-}" ]; then
        has_engine || fail "VOLUME=$VOLUME: no Docker engine answers"
        source=volume:$VOLUME
        data=$(docker volume inspect -f '{{.Mountpoint}}' "$VOLUME")
        only_read
    elif [ -n "${DIR:-}" ]; then
        data=$(cd "$DIR" && pwd)
        source=path:$data
        only_read
    else
        make_source
    fi
}

only_read() {
    change_words="nothing is changed: $source is yours and only read"
    change() { sleep 1; }
    keep_copy() { :; }
    reference=$data
    reference_words="the source as it is now"
}

make_source() {
    if has_engine && [ "$(id -u)" -eq 0 ]; then
        made_volume=icecore-demo-$$
        docker volume create --label icecore.demo=yes "$made_volume" >/dev/null
        data=$(docker volume inspect -f '{{.Mountpoint}}' "$made_volume")
        source=volume:$made_volume
        if [ ! -d "$data" ]; then
            echo "The engine keeps the volume where this host cannot see it; a directory takes its place."
            docker volume rm "$made_volume" >/dev/null
            made_volume=
        fi
    elif has_engine; then
        echo "Only root can read the files of volumes; a directory takes the volume's place."
    else
        echo "No Docker engine answers; a directory takes the volume's place."
    fi
    if [ -z "$made_volume" ]; then
        data=$work/data
        mkdir "$data"
        source=path:$data
    fi
    keep_copy() { cp -a "$data" "$work/copy"; }
    reference=$work/copy
    reference_words="a copy that was kept of the first state"
    if find_postgres; then fill_with_postgres; else fill_with_files; fi
}

has_engine() {
    command -v docker >/dev/null && timeout 20 docker version >/dev/null 2>&1
}

find_postgres() {
    [ -z "${FILES:-}" ] || return 1
    postgres_bin=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1) || true
    [ -n "$postgres_bin" ] && [ -x "$postgres_bin/initdb" ] && [ -x "$postgres_bin/pgbench" ] || return 1
    [ "$(id -u)" -ne 0 ] || id postgres >/dev/null 2>&1
}

# The server works in a folder beside the source and is stopped before its files are copied in, as a stopped container's
# would be.
fill_with_postgres() {
    echo "Making a PostgreSQL database (pgbench, scale $scale) as the data."
    mkdir "$work/server"
    [ "$(id -u)" -ne 0 ] || chown postgres: "$work/server"
    as_postgres "$postgres_bin/initdb" -D "$work/server/data" -A trust -U postgres --no-sync >"$work/server.log"
    with_server "$postgres_bin/pgbench" -q -i -s "$scale"
    copy_in
    change_words="$transactions transactions of pgbench"
    change() {
        with_server "$postgres_bin/pgbench" -c 4 -t $((transactions / 4)) -n
        copy_in
    }
}

with_server() {
    as_postgres "$postgres_bin/pg_ctl" -D "$work/server/data" -w -o "-k $work/server -c listen_addresses=''" -l "$work/server/log" start \
        >/dev/null
    local status=0
    as_postgres "$@" -h "$work/server" -U postgres postgres >>"$work/server.log" 2>&1 || status=$?
    stop_server
    [ "$status" -eq 0 ] || fail "$1: $(tail -n 5 "$work/server.log")"
}

stop_server() {
    if [ -e "$work/server/data/postmaster.pid" ]; then
        as_postgres "$postgres_bin/pg_ctl" -D "$work/server/data" -w -m fast stop >/dev/null
    fi
}

as_postgres() {
    if [ "$(id -u)" -eq 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi
}

copy_in() {
    rsync -aHAX --inplace --delete "$work/server/data/" "$data/"
}

# Without PostgreSQL: files that every host has.
fill_with_files() {
    echo "Without PostgreSQL, files of this host are the data."
    mkdir "$data/doc" "$data/include"
    cp -a /usr/share/doc/. "$data/doc/" 2>/dev/null || true
    cp -a /usr/include/. "$data/include/" 2>/dev/null || true
    head -c 20000000 /dev/urandom >"$data/random"
    change_words="one byte changed in a large file, some files edited, removed and added"
    change() {
        printf X | dd of="$data/random" bs=1 seek=9999999 conv=notrunc status=none
        find "$data/doc" -type f -name 'copyright' | sort | sed -n 1,100p | while read -r file; do echo edited >>"$file"; done
        find "$data/include" -type f -name '*.h' | sort | sed -n 1,20p | xargs -r rm -f
        echo new >"$data/new"
    }
}

# --- steps and what they cost

# run STEP COMMAND...: keeps the JSON, the seconds and the peak memory of a command.
run() {
    local step=$1 status=0
    shift
    echo "\$ icecore ${*:2}"
    if [ -x /usr/bin/time ]; then
        /usr/bin/time -f '%e %M' -o "$work/$step.cost" "$@" >"$work/$step.json" || status=$?
    else
        local start=$EPOCHREALTIME
        "$@" >"$work/$step.json" || status=$?
        awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { print b - a, "-" }' >"$work/$step.cost"
    fi
    # 3: done, but some entries could not be read or changed meanwhile. With a user's live data that may happen.
    if [ "$status" -eq 3 ] && [ -n "${VOLUME:-}${DIR:-}" ]; then
        echo "Some entries could not be read or changed meanwhile; the program named them above."
    elif [ "$status" -ne 0 ]; then
        cat "$work/$step.json" >&2
        fail "the step '$step' ended with exit code $status"
    fi
}

# field STEP PATH: a value of a step's JSON.
field() {
    python3 - "$work/$1.json" "$2" <<'PYTHON'
import json, sys
value = json.load(open(sys.argv[1]))
for key in sys.argv[2].split("."):
    value = value[int(key)] if isinstance(value, list) else value[key]
print(value)
PYTHON
}

compare() {
    if ! command -v rsync >/dev/null; then
        diff -r --no-dereference "$reference" "$work/restored" >"$work/differences" || fail "the restored files differ from $reference_words"
        echo "The restored files have the contents of $reference_words."
        return
    fi
    # Contents by checksum, names, kinds, owners, modes, times to the nanosecond, hard links, ACLs, attributes.
    rsync -aHAXnci --delete --modify-window=-1 "$reference/" "$work/restored/" >"$work/differences"
    local count
    count=$(wc -l <"$work/differences")
    if [ "$count" -eq 0 ]; then
        echo "The restored tree equals $reference_words: contents, owners, modes, times, links, ACLs, attributes."
    elif [ -n "${VOLUME:-}${DIR:-}" ]; then
        echo "$count entries of the source differ from the restored ones: it was written to meanwhile. The first of them:"
        head -n 5 "$work/differences"
    else
        head -n 20 "$work/differences" >&2
        fail "the restored tree differs from the copy in $count entries"
    fi
}

table() {
    say "What each step cost"
    printf '%-16s %9s %12s %12s %12s\n' step seconds 'new bytes' 'stored bytes' 'peak memory'
    local step
    for step in init first second restore verify stats; do
        local seconds memory new=- stored=-
        read -r seconds memory <"$work/$step.cost"
        [ "$memory" = - ] || memory="$((memory / 1024)) MiB"
        case $step in
            first | second)
                new=$(size "$(field "$step" snapshots.0.new_bytes)")
                stored=$(size "$(field "$step" snapshots.0.stored_bytes)")
                ;;
        esac
        printf '%-16s %9.2f %12s %12s %12s\n' "$step" "$seconds" "$new" "$stored" "$memory"
    done
    echo
    echo "source: $(size "$(field first snapshots.0.bytes)") in $(field first snapshots.0.files) files;" \
        "repository: $(size "$(field stats stored_bytes)") in $(field stats packs) packs for $(field stats snapshots) snapshots;" \
        "first snapshot: ${id_first:0:10}"
}

size() {
    numfmt --to=iec-i --suffix=B --format=%.1f "$1"
}

say() {
    printf '\n--- %s\n' "$*"
}

fail() {
    echo "demo: $*" >&2
    exit 1
}

clean_up() {
    local status=$?
    trap - EXIT
    set +e
    [ -z "$postgres_bin" ] || stop_server
    [ -z "$made_volume" ] || docker volume rm -f "$made_volume" >/dev/null
    if [ "${KEEP:-}" = 1 ]; then
        echo "kept: $work"
    else
        rm -rf "$work"
    fi
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
main
