# To be sourced: fetches source packages of the distribution.

# fetch_source FOLDER ARGUMENT...: what `apt-get source --download-only ARGUMENT...` fetches, into a folder; what went wrong
# to FOLDER/log. With a configuration of its own: the machine's own stays as it is. The mirrors are the machine's.
fetch_source() {
  local folder file apt
  mkdir -p "$1"/lists/partial "$1"/cache/archives/partial
  folder=$(realpath "$1")
  shift
  {
    grep -hsE '^deb +[^[]*http' /etc/apt/sources.list /etc/apt/sources.list.d/*.list | sed 's/^deb /deb-src /' || true
    for file in /etc/apt/sources.list.d/*.sources; do
      [ -e "$file" ] || continue
      awk '
        function flush(n, i, j, u, s) {
          if (uris != "") { n = split(uris, u, " "); m = split(suites, s, " ")
            for (i = 1; i <= n; i++) for (j = 1; j <= m; j++) print "deb-src " (key != "" ? "[signed-by=" key "] " : "") u[i] " " s[j] " " parts }
          uris = ""; suites = ""; parts = ""; key = "" }
        /^URIs:/ { uris = substr($0, 7) } /^Suites:/ { suites = substr($0, 9) }
        /^Components:/ { parts = substr($0, 13) } /^Signed-By: *\// { key = $2 }
        /^$/ { flush() } END { flush() }' "$file"
    done
  } | grep debian | sort -u > "$folder/sources.list"
  apt=(-o Dir::Etc::SourceList="$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists="$folder/lists" -o Dir::Cache="$folder/cache" -o APT::Sandbox::User=root)
  apt-get "${apt[@]}" -qq update > "$folder/log" 2>&1 &&
    (cd "$folder" && apt-get "${apt[@]}" -qq source --download-only "$@" >> "$folder/log" 2>&1)
}
