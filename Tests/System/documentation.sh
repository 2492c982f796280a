# The guides and the reference are complete: every excerpt in the sources, every public symbol documented, every link good.
# Only builds and reads files.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
"$root/Setup/docs.sh"
[ -s "$root/.build/docs/index.html" ]
