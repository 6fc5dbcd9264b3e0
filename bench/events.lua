-- Posts requests and answers as KServe's logger does, one event a post, or BATCH of them at once.
local batch, number = tonumber(os.getenv("BATCH")), 0
local function read(name) local f = io.open(os.getenv(name), "rb"); local text = f:read("*a"); f:close(); return text end
local bodies = { read("ASKED"), read("ANSWERED") }
local kinds = { "request", "response" }
local prefix = "org.kubeflow.serving.inference."
local run = os.getenv("RUN")

local function single()
  local half = number % 2 + 1
  local headers = {
    ["content-type"] = "application/json", ["ce-specversion"] = "1.0", ["ce-id"] = run .. math.floor(number / 2),
    ["ce-source"] = "pod", ["ce-type"] = prefix .. kinds[half], ["ce-time"] = "2026-11-24T10:11:12.123456789Z",
    ["ce-inferenceservicename"] = "m", ["ce-namespace"] = "prod", ["ce-component"] = "predictor",
    ["ce-endpoint"] = "default", ["ce-metadata"] = "{}",
  }
  number = number + 1
  return wrk.format("POST", "/", headers, bodies[half])
end

local function several()
  local events = {}
  for index = 1, batch do
    local half = number % 2 + 1
    events[index] = '{"specversion":"1.0","id":"' .. run .. math.floor(number / 2) .. '","source":"pod","type":"' .. prefix
      .. kinds[half] .. '","inferenceservicename":"m","datacontenttype":"application/json","data":' .. bodies[half] .. "}"
    number = number + 1
  end
  local headers = { ["content-type"] = "application/cloudevents-batch+json" }
  return wrk.format("POST", "/", headers, "[" .. table.concat(events, ",") .. "]")
end

request = batch > 1 and several or single
