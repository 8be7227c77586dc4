# Sourced by the scripts beside it: labs of any size in a scratch folder, and figures as one line each.
# Needs $labwright, the release binary. Figures are medians of $runs runs; the machines are noisy, so CPU stands beside
# wall, and a bar is shown, never enforced.

LC_ALL=C
TIMEFORMAT='%3R %3U %3S'
runs=${RUNS:-5}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/labwright-bench.XXXXXX")
samples=$scratch/samples
trap 'rm -rf -- "$scratch"' EXIT

fail() { echo "error: $*" >&2; exit 1; }

# What, measured, CPU, bar.
figure() { printf '%-58s %11s   cpu %9s   bar %s\n' "$1" "$2" "${3:--}" "${4:--}"; }

# Median of column $1 of the samples, in milliseconds.
median() { awk -v column="$1" '{ print $column }' "$samples" | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

# Runs a command once and adds its wall and CPU milliseconds to the samples. Its output is kept for `said`.
sample() {
  { time "$@" >"$scratch/out" 2>"$scratch/err" || echo failed >"$scratch/failed"; } 2>"$scratch/time"
  if [ -e "$scratch/failed" ]; then
    cat "$scratch/out" "$scratch/err" >&2
    fail "this went wrong: $*"
  fi
  awk '{ printf "%.0f %.0f\n", $1 * 1000, ($2 + $3) * 1000 }' "$scratch/time" >>"$samples"
}

# Measures a command: WHAT BAR COMMAND...
measure() {
  local what=$1 bar=$2
  shift 2
  : >"$samples"
  "$@" >/dev/null 2>&1 || true # the first run finds cold files
  for ((i = 0; i < runs; i++)); do sample "$@"; done
  figure "$what" "$(median 1) ms" "$(median 2) ms" "$bar"
}

# Measures the most memory a command has resident: WHAT BAR COMMAND...
resident() {
  local what=$1 bar=$2
  shift 2
  /usr/bin/time -o "$scratch/time" -f %M "$@" >/dev/null 2>&1 || fail "this went wrong: $*"
  figure "$what" "$(awk 'END { printf "%.0f MiB", $1 / 1024 }' "$scratch/time")" - "$bar"
}

# Seconds in brackets behind some words of the last command's progress lines, as milliseconds.
said() { sed -n "s/^ *[0-9]* $1.* (\([0-9.]*\) s)\$/\1/p" "$scratch/err" | awk '{ sum += $1 } END { printf "%.0f", sum * 1000 }'; }

# A lab with a site of its own: FOLDER COUNT STATE, one vm per line of a roster.
make_lab() {
  local folder=$1 count=$2 state=$3
  mkdir -p "$folder/images"
  qemu-img create -q -f qcow2 "$folder/images/tiny.qcow2" 64M
  { echo user; seq -f 'u%05g' "$count"; } >"$folder/students.csv"
  cat >"$folder/lab.yaml" <<END
lab: bench
user_groups: { students: { roster: students.csv } }
vm_groups: { lab1: { ip_range: 10.64.0.2-10.64.255.254, subnet: 10.64.0.0/16, gateway: 10.64.0.1 } }
templates: { tiny: { owner: badmin, vm_group: lab1, disks: [{ image: images/tiny.qcow2 }], memory: 128M } }
vms: { exam: { derive: tiny, for_each: students, name: "{user}-tiny", isolated: true, state: $state } }
END
  mkdir -p "$folder.site"
  cat >"$folder.site/site.yaml" <<END
state: state.db
storage: { root: storage }
scheduler: { local: { folder: queue } }
service_user: nobody
network: { dhcp: none }
END
}

# The same number of vms, each written out as people write one: FOLDER COUNT.
make_written_out() {
  local folder=$1 count=$2
  mkdir -p "$folder/images"
  qemu-img create -q -f qcow2 "$folder/images/tiny.qcow2" 64M
  {
    cat <<END
lab: bench
user_groups: { students: { members: [$(seq -s ', ' -f 'u%05g' "$count")] } }
vm_groups: { lab1: { ip_range: 10.64.0.2-10.64.255.254, subnet: 10.64.0.0/16, gateway: 10.64.0.1 } }
templates: { tiny: { owner: badmin, vm_group: lab1, disks: [{ image: images/tiny.qcow2 }], memory: 128M } }
vms:
END
    seq -f '%05g' "$count" | awk '{
      print "  u" $1 "-tiny:"
      print "    # Seat " $1 " of the lecture hall; ask the assistants before you change anything of it in the week of the exam."
      print "    description: >-"
      for (line = 0; line < 6; line++)
        print "      The machine of student u" $1 " for the practical exam in local area networks, as it is handed out"
      print "    derive: tiny"
      print "    owner: u" $1
      print "    vm_group: lab1"
      print "    memory: 256M"
      print "    cpus: 1"
      print "    isolated: true"
      print "    state: on_demand"
      print "    restart: on_failure"
    }'
  } >"$folder/lab.yaml"
}

on_site() { local folder=$1; shift; "$labwright" --site "$folder.site/site.yaml" "$@"; }

# Makes the lab's state and applies it.
apply_lab() {
  "$labwright" --site "$1.site/site.yaml" state init >/dev/null 2>&1 || fail "no state could be made for $1"
  "$labwright" --site "$1.site/site.yaml" apply "$1" --yes >"$scratch/out" 2>"$scratch/err" ||
    { cat "$scratch/out" "$scratch/err" >&2; fail "the lab in $1 could not be applied"; }
}
