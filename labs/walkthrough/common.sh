# Sourced by the scripts beside it: places and names, and what the quickstart's scripts have in common with them.

# shellcheck source=labs/quickstart/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../quickstart/common.sh"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
namespace=lw-walkthrough
place=/var/lib/labwright-walkthrough
socket=$place/run/api.sock
people=(badmin doraz alex)

# The accounts and groups that `up` made, one a line: what was there before is not ours to remove.
made=$place/made

of_root() { inside "$place/bin/labwright" --site "$place/site.yaml" "$@"; }

# Whether the daemon of `up` lives.
daemon_lives() {
  local pid
  pid=$(cat "$place/daemon.pid" 2>/dev/null) && [ "$(readlink "/proc/$pid/exe")" = "$place/bin/labwright" ]
}
