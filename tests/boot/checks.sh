# shellcheck shell=bash
# What an operator does with the package on a machine, one after another, each step checked; sourced by run.sh. A check
# looks at what an operator sees (systemctl, journalctl, alexandriactl, files), never into the program.
# shellcheck disable=SC2154 # work, package, root_of_project and share_pid are run.sh's, root and leader machine.sh's

passed=0 failed=0
unit=alexandria-ingestd
state_file=/var/lib/alexandria-ingestd/state.db

# check WHAT COMMAND...: COMMAND succeeds. What it says is shown where it does not.
check() {
  local what=$1 said
  shift
  if said=$("$@" 2>&1); then
    passed=$((passed + 1))
    printf 'ok      %s\n' "$what"
  else
    failed=$((failed + 1))
    printf 'FAILED  %s\n%s\n' "$what" "$(tail -n 15 <<<"$said" | sed 's/^/        /')"
  fi
}

# wait_for SECONDS COMMAND...
wait_for() {
  local until=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$until" ] || return 1
    sleep 0.1
  done
}

# What is compared is said where it differs.
same() { [ "$1" = "$2" ] || { printf 'expected: %s\nfound:    %s\n' "$2" "$1"; return 1; }; }
contains() { grep -qF -- "$2" <<<"$1" || { printf 'without %s:\n%s\n' "$2" "$1"; return 1; }; }

property() { inside systemctl show -P "$1" "${2:-$unit}"; }
is_property() { same "$(property "$1")" "$2"; }
journal() { inside journalctl -u "$unit" -o cat --no-pager "$@"; }
log_has() { contains "$(journal "${@:2}")" "$1"; }
status_has() { contains "$(property StatusText)" "$1"; }
control() { inside timeout 30 alexandriactl "$@"; }
# answers FILTER: alexandriactl's status, where jq's FILTER is true.
answers() {
  control status --json >"$work/status" || return 1
  jq -e "$1" <"$work/status" >/dev/null || { cat "$work/status"; return 1; }
}
another_process() { local now; now=$(property MainPID) && [ "$now" != "$1" ] && [ "$now" != 0 ]; }
# fails_with STATUS TEXT COMMAND...
fails_with() {
  local status=$1 text=$2 said code=0
  shift 2
  said=$("$@" 2>&1) || code=$?
  same "$code" "$status" && contains "$said" "$text"
}
# within SECONDS COMMAND...
within() {
  local limit=$1 from=$EPOCHREALTIME
  shift
  "$@" && awk -v a="$from" -v b="$EPOCHREALTIME" -v l="$limit" \
    'BEGIN { printf "took %.1f s, allowed %s\n", b - a, l; exit !(b - a <= l) }'
}

# add_book FILE: with Calibre's own program.
add_book() {
  local said _
  # Calibre refuses while another of its programs runs on this machine: what it says is shown, and it is asked twice more.
  for _ in 1 2 3; do
    if said=$(calibredb add --with-library "$work/library" "$1" 2>&1) && contains "$said" "Added book ids"; then
      return 0
    fi
    printf '%s\n' "$said"
    sleep 2
  done
  return 1
}

# drop_in TEXT: until the machine ends.
drop_in() {
  inside mkdir -p "/run/systemd/system/$unit.service.d"
  printf '%b' "$1" >"$work/drop-in"
  # The machine's /run is its own: the file is handed over by its standard input.
  nsenter -t "$leader" -a tee "/run/systemd/system/$unit.service.d/test.conf" <"$work/drop-in" >/dev/null
  inside systemctl daemon-reload
}

all_checks() {
  make_older_package
  an_older_package_is_installed
  nothing_is_configured
  a_configuration_that_is_refused
  configured_and_enabled
  a_late_mount_and_a_book
  a_reload
  who_may_ask
  credentials
  an_upgrade
  a_crash
  a_process_that_hangs
  an_embedder_that_hangs
  a_share_that_hangs
  stopping
  a_state_of_a_newer_version
  removed_and_purged
}

# The same programs under a smaller version number, as if they had been packed earlier.
make_older_package() {
  dpkg-deb -R "$package" "$work/older"
  sed -i 's/^Version: .*/Version: 0.0.9/' "$work/older/DEBIAN/control"
  dpkg-deb --root-owner-group -Znone -b "$work/older" "$root/root/older.deb" >/dev/null
  rm -rf "$work/older"
  cp "$package" "$root/root/newer.deb"
}

an_older_package_is_installed() {
  check "apt installs the package" inside apt-get install -y --no-install-recommends /root/older.deb
  check "nothing is enabled or started by that" is_property UnitFileState disabled
  check "... and nothing runs" is_property ActiveState inactive
  check "the user, its group, and a configuration that they alone may read" \
    same "$(inside stat -c '%U %G %a' /etc/alexandria-ingestd/config.toml)" "root alexandria-ingestd 640"
  check "the units have no fault" same "$(inside systemd-analyze verify --man=no $unit.service $unit.socket 2>&1)" ""
  check "systemd-analyze security: at most 2.0" exposure
  check "the example mount units have no fault" same "$(inside sh -c 'cd /usr/share/doc/alexandria-ingestd/examples &&
    systemd-analyze verify --man=no ./mnt-calibre.mount ./mnt-calibre.automount' 2>&1)" ""
}

exposure() {
  local line
  line=$(inside systemd-analyze security --no-pager $unit.service | grep 'Overall exposure')
  printf '%s\n' "$line"
  awk '{ for (i = 1; i < NF; i++) if ($i == "alexandria-ingestd.service:") exit !($(i + 1) <= 2.0); exit 1 }' <<<"$line"
}

# No network, no model, no library: the service says what it lacks, and keeps at it.
nothing_is_configured() {
  inside systemctl start --no-block $unit
  check "unconfigured, its status says that the model cannot be fetched" wait_for 30 status_has "cannot be fetched"
  check "... and in its log, with what to do" log_has "embedding.model_path"
  check "... is still starting" is_property ActiveState activating
  check "... and has not been restarted" is_property NRestarts 0
  check "... stops when it is told to" within 10 inside systemctl stop $unit
}

a_configuration_that_is_refused() {
  sed -i 's|^\[library\]$|&\npaht = "/x"|' "$root/etc/alexandria-ingestd/config.toml"
  check "a wrong key ends the start" fails_with 1 "" inside systemctl start $unit
  check "... with exit status 2" is_property ExecMainStatus 2
  check "... named in the log" log_has "paht"
  check "... and no restart" is_property ActiveState failed
  check "a question does not wait for ever" fails_with 1 "alexandriactl:" control status
  check "... nor start it in a loop" is_property NRestarts 0
  sed -i '/^paht = /d' "$root/etc/alexandria-ingestd/config.toml"
  inside systemctl reset-failed $unit
}

configured_and_enabled() {
  sed -i 's|^#model = .*|model = "minilm"|; s|^#model_path = .*|model_path = "/srv/models/minilm"|
    s|^#listen = .*|listen = "127.0.0.1:8765"|' "$root/etc/alexandria-ingestd/config.toml"
  plant_first_state
  check "check-config takes the configuration" inside alexandria-ingestd check-config
  check "... and names the folders that the service has" \
    contains "$(inside alexandria-ingestd check-config)" "the installed service has /var/lib/alexandria-ingestd"
  check "enable --now" inside systemctl enable --now $unit
  check "... enables the socket, too" \
    same "$(property UnitFileState) $(property UnitFileState $unit.socket)" "enabled enabled"
  check "READY came after the model was loaded and warm" ready_after_warm_up
  check "a state of the first schema was migrated" same "$(schema)" "$(migrations)"
  # Parked, or tried again by a program that reads more.
  check "... and its book is still there" contains "$(control failed; control queue)" "A book of the first schema"
  check "the library is not there, and the service is" wait_for 10 status_has "library is not available"
  check "... with one start" is_property NRestarts 0
}

# As version 0.0.1 left it: one book that could not be read.
plant_first_state() {
  # The state that the first start made is in the way.
  inside sh -c "rm -f $state_file*"
  python3 - "$root_of_project/migrations/0001_initial.sql" "$root$state_file" <<'PYTHON'
import sqlite3, sys
state = sqlite3.connect(sys.argv[2], isolation_level=None)
state.executescript(open(sys.argv[1], encoding="utf-8").read())
state.execute("PRAGMA application_id = 0x416c7849")
state.execute("PRAGMA user_version = 1")
library, book = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
state.execute("INSERT INTO libraries VALUES (?, 'files', '/srv/old', 1)", (library,))
metadata = ('{"title":"A book of the first schema","authors":["Ana"],"language":null,"tags":[],"series":null,'
            '"series_index":null,"publisher":null,"published":null,"identifiers":{},"rating":null}')
path = "/srv/old/a.epub"
state.execute("INSERT INTO books (id, library_uuid, book_uuid, source, source_id, metadata, metadata_hash, format, path, "
              "size, mtime_us, added_us) VALUES (1, ?, ?, 'file', ?, ?, 'x', 'EPUB', ?, 5, 1, 1)",
              (library, book, path, metadata, path))
state.execute("INSERT INTO jobs (book, book_uuid, source, source_id, title, kind, state, added_us, attempts, "
              "failure_kind, last_error, queued_us, finished_us) VALUES (1, ?, 'file', ?, 'A book of the first schema', "
              "'ingest', 'parked', 1, 1, 'book', 'the EPUB has no text', 1, 2)", (book, path))
PYTHON
  inside chown $unit:$unit "$state_file"
}

schema() {
  python3 -c 'import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute("PRAGMA user_version").fetchone())' \
    "$root$state_file"
}
migrations() { find "$root_of_project/migrations" -name '*.sql' | wc -l; }

# By the machine's one clock: the model's line in the journal, and the moment systemd took the service for started.
ready_after_warm_up() {
  local loaded active of_the_model='select((.MESSAGE | type) == "string" and (.MESSAGE | startswith("model ")))'
  loaded=$(inside journalctl -u $unit -o json --no-pager | jq -r "$of_the_model | .__MONOTONIC_TIMESTAMP" | tail -n 1)
  active=$(property ActiveEnterTimestampMonotonic)
  printf 'loaded at %s us, active at %s us\n' "$loaded" "$active"
  [ -n "$loaded" ] && [ "$active" -ge "$loaded" ]
}

a_late_mount_and_a_book() {
  cat >"$root/etc/systemd/system/mnt-calibre.mount" <<'UNIT'
[Unit]
Description=The library
[Mount]
What=/srv/share
Where=/mnt/calibre
Type=none
Options=bind,ro
UNIT
  inside systemctl daemon-reload
  check "the library is mounted, late" inside systemctl start mnt-calibre.mount
  check "... and is seen" wait_for 30 answers '.library.available'
  check "the book in it is embedded" wait_for 30 answers '.queue.done_books == 1'
  check "a book is added with calibredb" add_book /usr/share/calibre/quick_start/deu.epub
  check "... and embedded" wait_for 30 answers '.queue.done_books == 2'
  check "the journal has its story" log_has "Kurzanleitung" BOOK_ID=2
  check "... and no other book's" same "$(journal BOOK_ID=2 | grep -c 'book 1 ')" 0
  if [ -f "$root_of_project/packaging/alexandria-ingestd.catalog" ]; then
    check "... and explains its events" \
      contains "$(inside journalctl -u $unit -x --no-pager)" "Subject: The service is ready"
  fi
  check "a search finds it" contains "$(control search "Wie füge ich Bücher hinzu?")" "Kurzanleitung"
}

# reload_after EDIT TEXT: sed's EDIT of the configuration, and a reload that says TEXT.
reload_after() {
  sed -i "$1" "$root/etc/alexandria-ingestd/config.toml"
  inside systemctl reload "$unit" && wait_for 10 log_has "$2" -n 10 || log_has "$2" -n 10
}

a_reload() {
  local pid
  pid=$(property MainPID)
  check "a reload takes a changed setting" reload_after 's|^#poll_seconds = .*|poll_seconds = 1.5|' \
    "library.poll_seconds is 1.5 now"
  check "... says what waits for a restart" reload_after 's|^#workers = .*|workers = 3|' \
    "ingest.workers stays 2 until a restart"
  check "... takes nothing of a file with a mistake" reload_after 's|^poll_seconds = 1.5|pol_seconds = 9|' \
    "did you mean library.poll_seconds?"
  check "... and the file is right again" reload_after 's|^pol_seconds = 9|poll_seconds = 2.0|;s|^workers = 3|workers = 2|' \
    "library.poll_seconds is 2.0 now"
  check "... in one process" is_property MainPID "$pid"
  check "... which is active" is_property ActiveState active
}

who_may_ask() {
  inside useradd --groups $unit ana
  inside useradd ben
  check "a member of the group may ask" inside runuser -u ana -- alexandriactl status
  check "... and order" inside runuser -u ana -- alexandriactl rescan
  check "another user is refused" fails_with 1 "denied" inside runuser -u ben -- alexandriactl status
}

credentials() {
  check "without secrets there are no credentials" same "$(credential_files)" ""
  check "... and HTTP asks for none" same "$(http_answer /status)" 200
  inside install -d -m 700 /etc/credstore
  (umask 077 && echo 0123456789abcdef0123456789abcdef >"$root/etc/credstore/alexandria-ingestd.http-token")
  check "a restart with a secret" inside systemctl restart $unit
  check "the service sees that one alone" same "$(credential_files)" "http-token"
  check "... and its user could not read the file itself" \
    fails_with 1 "denied" inside runuser -u $unit -- cat /etc/credstore/alexandria-ingestd.http-token
  check "HTTP asks for it" same "$(http_answer /status)" 401
  check "... and takes it" \
    same "$(http_answer /status -H "Authorization: Bearer 0123456789abcdef0123456789abcdef")" 200
  check "... and no control verb" \
    same "$(http_answer /pause -X POST -H "Authorization: Bearer 0123456789abcdef0123456789abcdef" --json '{}')" 404
}

# http_answer PATH [ARGUMENT FOR CURL...]: the answer's status; this machine's curl, in the booted one's network.
http_answer() {
  local path=$1
  shift
  nsenter -t "$leader" -n curl -s -o /dev/null -w '%{http_code}' "$@" "http://127.0.0.1:8765$path"
}

credential_files() {
  inside ls "/proc/$(property MainPID)/root/run/credentials/$unit.service" 2>/dev/null | paste -sd ' '
}

an_upgrade() {
  local pid
  pid=$(property MainPID)
  inside journalctl --rotate >/dev/null 2>&1
  inside sh -c 'date +%s.%N' >"$work/since"
  check "apt upgrades the running service" inside apt-get install -y --no-install-recommends /root/newer.deb
  check "... to the newer version" same "$(inside dpkg -s $unit | sed -n 's/^Version: //p')" \
    "$(dpkg-deb -f "$package" Version)"
  check "... restarts it once" same "$(journal --since "@$(cat "$work/since")" | grep -c '^ready')" 1
  check "... as another process" test "$(property MainPID)" != "$pid"
  check "... with its configuration" inside grep -q '^model = "minilm"' /etc/alexandria-ingestd/config.toml
  check "... and its state" answers '.queue.done_books == 2'
  check "... and still enabled" is_property UnitFileState enabled
}

a_crash() {
  local pid
  drop_in '[Service]\nRestartSec=1s\nWatchdogSec=5s\n'
  inside systemctl restart $unit
  pid=$(property MainPID)
  cp "$root_of_project/packaging/COPYING" "$work/The General Public License.txt"
  check "a longer book is added" add_book "$work/The General Public License.txt"
  check "... and in work" wait_for 30 answers '.current | length == 1'
  inside sh -c "kill -KILL $pid" || true
  check "killed, it is restarted" wait_for 20 is_property NRestarts 1
  check "... and answers" wait_for 30 answers '.pid != '"$pid"
  check "... and embeds that book" wait_for 120 answers '.queue.done_books == 3'
  check "library, state and store agree" control verify
}

a_process_that_hangs() {
  local pid
  pid=$(property MainPID)
  inside sh -c "kill -STOP $pid" || true
  check "stopped dead, it is ended by the watchdog" wait_for 30 log_has "Watchdog timeout" _PID=1
  check "... and started again" wait_for 30 answers '.pid != '"$pid"
}

# A thread of the process hangs, and the others go on: builds for tests can be told to (src/failpoint.rs).
an_embedder_that_hangs() {
  local pid
  if ! grep -q '"hang"' "$root_of_project/src/failpoint.rs" || ! inside grep -q ALEXANDRIA_FAILPOINTS /usr/bin/$unit; then
    say "SKIPPED: the check of an embedder that hangs: this build has no failpoints"
    return 0
  fi
  drop_in '[Service]\nRestartSec=1s\nWatchdogSec=5s\nEnvironment=ALEXANDRIA_EMBEDDING__STALL_SECONDS=3
Environment=ALEXANDRIA_FAILPOINTS=hang=embedder@/run/alexandria-ingestd/hang\n'
  inside systemctl restart $unit
  pid=$(property MainPID)
  inside touch /run/alexandria-ingestd/hang
  check "a book is to be embedded again" control ingest 3 --force
  check "an embedder that hangs is seen by the watchdog" wait_for 60 another_process "$pid"
  inside rm /run/alexandria-ingestd/hang
  check "... and the book is embedded after the restart" wait_for 120 answers '.queue | .queued + .running == 0'
  drop_in '[Service]\nRestartSec=1s\nWatchdogSec=5s\n'
  inside systemctl restart $unit
}

a_share_that_hangs() {
  local restarts
  [ -n "$share_pid" ] || return 0
  restarts=$(property NRestarts)
  kill -STOP "$share_pid"
  sleep 8
  check "a share that hangs longer than the watchdog waits does not end the service" is_property NRestarts "$restarts"
  check "... which says that the library does not answer" wait_for 30 answers '.library.not_answering_since_us != null'
  check "... and searches" within 2 control search "library"
  kill -CONT "$share_pid"
  check "... and goes on with the share" wait_for 30 control rescan --full
}

stopping() {
  check "a book is to be embedded again" control ingest 3 --force
  check "a book is being embedded" wait_for 30 answers '.current | length == 1'
  check "SIGTERM ends it within 20 s" within 20 inside systemctl stop $unit
  check "... cleanly" same "$(property Result) $(property ExecMainStatus)" "success 0"
  check "... in order" log_has "stopped" -n 5
  check "the socket ended with it" same "$(property ActiveState $unit.socket)" inactive
  check "a question says how to start it" fails_with 1 "systemctl" control status
  sleep 1
  check "... and does not start it" is_property ActiveState inactive
  check "started again" inside systemctl start $unit
  check "... the socket, too" same "$(property ActiveState $unit.socket)" active
  check "... and the book goes on" wait_for 120 answers '.queue | .queued == 0 and .running == 0 and .done_books == 3'
}

a_state_of_a_newer_version() {
  local real
  inside systemctl stop $unit
  real=$(schema)
  set_schema 99
  check "a state of a newer version ends the start" fails_with 1 "" inside systemctl start $unit
  check "... with exit status 3" is_property ExecMainStatus 3
  check "... and no restart" is_property ActiveState failed
  check "... and the reason" log_has "newer" -n 20
  set_schema "$real"
  check "the right state starts again" inside systemctl start $unit
}

set_schema() {
  python3 -c 'import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute(f"PRAGMA user_version = {int(sys.argv[2])}")' \
    "$root$state_file" "$1"
  inside chown $unit:$unit "$state_file"
}

removed_and_purged() {
  check "apt removes the package" inside apt-get remove -y $unit
  check "... ends the service" inside sh -c "! pgrep -x alexandria-inge && ! systemctl is-active $unit $unit.socket"
  check "... keeps the state" inside test -f "$state_file"
  check "... and the configuration" inside grep -q '^model = "minilm"' /etc/alexandria-ingestd/config.toml
  check "apt purges it" inside apt-get purge -y $unit
  inside rm -rf "/run/systemd/system/$unit.service.d" /root/older.deb /root/newer.deb
  inside systemctl daemon-reload
  check "... and nothing stays" same "$(inside find / -xdev -iname '*alexandria*'; inside find /run -iname '*alexandria*')" ""
  check "... no user, no group" fails_with 2 "" inside getent passwd $unit
  check "... no group" fails_with 2 "" inside getent group $unit
}
