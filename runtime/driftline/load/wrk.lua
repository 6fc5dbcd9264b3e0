-- One POST again and again; then what came of it, a line each: totals, then durations and how many they were.
-- Arguments: the file that holds the body, then headers as name and value.

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  file:close()
  for i = 2, #args, 2 do
    wrk.headers[args[i]] = args[i + 1]
  end
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format("driftline %d %d %d %d %d %d %d\n", summary.requests, summary.duration,
    e.connect, e.read, e.write, e.status, e.timeout))
  for i = 1, #latency do
    io.write(string.format("%d %d\n", latency(i)))
  end
end
