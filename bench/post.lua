-- The same POST again and again, and the result as one line of JSON.
-- Arguments: the file that holds the body, and where its JSON ends if binary tensors follow ("-" if not).

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  file:close()
  if args[2] == "-" then
    wrk.headers["Content-Type"] = "application/json"
  else
    wrk.headers["Content-Type"] = "application/octet-stream"
    wrk.headers["Inference-Header-Content-Length"] = args[2]
  end
end

function done(summary, latency)
  local e = summary.errors
  print(string.format(
    '{"requests": %d, "microseconds": %d, "answered": %d, "failures": %d, "p50_us": %d, "p99_us": %d}',
    summary.requests, summary.duration, summary.requests - e.status,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
