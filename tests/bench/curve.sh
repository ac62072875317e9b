#!/bin/bash
# Draws the loss curve of a training log as text: tests/bench/curve.sh LOG.jsonl
exec awk -v columns=64 -v rows=14 '
  # The number behind "name": in a line of JSON.
  function field(name,   at) {
    at = index($0, "\"" name "\":")
    if (!at) return ""
    return substr($0, at + length(name) + 3) + 0
  }
  { if (field("loss") != "") { loss[++n] = field("loss"); step[n] = field("step") } }
  END {
    if (n == 0) { print "no step in the log"; exit 1 }
    if (columns > n) columns = n
    lo = 1e30; hi = -1e30
    for (c = 0; c < columns; c++) {  # each column is the mean of its steps
      first = int(c * n / columns) + 1; last = int((c + 1) * n / columns)
      sum = 0
      for (i = first; i <= last; i++) sum += loss[i]
      mean[c] = sum / (last - first + 1)
      if (mean[c] < lo) lo = mean[c]
      if (mean[c] > hi) hi = mean[c]
    }
    scale = hi > lo ? (rows - 1) / (hi - lo) : 0
    for (r = rows - 1; r >= 0; r--) {
      line = ""
      for (c = 0; c < columns; c++)
        line = line (int((mean[c] - lo) * scale + 0.5) == r ? "*" : " ")
      sub(/ +$/, "", line)
      label = r == rows - 1 ? sprintf("%.2f", hi) : r == 0 ? sprintf("%.2f", lo) : ""
      printf "%7s |%s\n", label, line
    }
    line = sprintf("%" columns "s", ""); gsub(/ /, "-", line)
    printf "%7s +%s\n", "nats", line
    printf "%8s step %d%*d\n", "", step[1], columns - 5 - length(step[1]), step[n]
  }' "$@"
