-- needs: prelude rights start put_fast queue rate_limit result complete
-- Keep jobs, all or none. Argument: {nonce, any rare, jobs, commands or none}; a job: {id, queue, fields, rare or 0}.
--   rare: {delay, at, priority, key, expires, needs, reject}, 0 for what is not said
-- Returns 0: under their own ids; or the ids under which they stand; or {'taken:', id of the job in the way, which}.
-- Look at every job before any is written
local stand, mine, holders = {}, {}, {}
local ENDED = {[S_FINISHED] = true, [S_FAILED] = true, [S_STOPPED] = true, [S_CANCELED] = true}
local function holder_of(key)
  local id = holders[key] or call('GET', K_KEY .. key)
  if not id or mine[id] then return id end
  local status = call('HGET', K_JOB .. id, F_status)
  return status and not ENDED[status] and id or nil
end
for i, job in ipairs(jobs) do
  local id, rare = job[1], job[4] ~= 0 and job[4] or {0, 0, 0, 0, 0, 0, 0}
  job[4] = rare
  local there = mine[id] or call('EXISTS', K_JOB .. id) == 1
  if there then
    if rare[7] ~= 0 and not mine[id] and call('HGET', K_JOB .. id, F_nonce) ~= nonce then
      return {'taken:', id, 'job_id'}
    end
    stand[i], job.skip = id, true
  else
    local holder = rare[4] ~= 0 and holder_of(rare[4]) or nil
    if holder and holder ~= id then
      if rare[7] ~= 0 then return {'taken:', holder, 'key'} end
      stand[i], job.skip = holder, true
    else
      stand[i], mine[id] = id, true
      if rare[4] ~= 0 then holders[rare[4]] = id end
    end
  end
end

-- A key of another kind is found before there is half a job
local looked = {}
for _, job in ipairs(jobs) do
  local queue = job[2]
  if not looked[queue] then
    looked[queue] = true
    call('LLEN', K_QUEUE .. queue)
    for _, key in ipairs({K_PRIORITIES .. queue, K_SCHEDULED .. queue, K_DEFERRED .. queue, K_EXPIRIES}) do
      call('ZSCORE', key, '')
    end
    call('SADD', K_QUEUES, K_QUEUE .. queue)
  end
end

local function defer(id, queue, needs)
  for _, need in ipairs(needs) do
    call('SADD', K_JOB .. need .. ':dependents', id)
    call('SADD', K_DEPENDENCIES .. id .. ':dependencies', need)
  end
  call('ZADD', K_DEFERRED .. queue, math.floor(now), id)
end

local wake = false
for _, job in ipairs(jobs) do
  if not job.skip then
    local id, queue, fields, rare = job[1], job[2], job[3], job[4]
    local delay, at, priority, key, expires, needs = unpack(rare)
    local due = at ~= 0 and tonumber(at) or (delay ~= 0 and now + delay or 0)
    local function add(name, value) fields[#fields + 1] = name fields[#fields + 1] = value end
    if rare[7] ~= 0 then add(F_nonce, nonce) end
    if expires ~= 0 then add(F_expires, string.format('%.6f', now + expires)) end
    if due > 0 then add(F_due, string.format('%.6f', due)) end
    local status = S_QUEUED
    if due > now then status = S_SCHEDULED end
    if needs ~= 0 then status = S_DEFERRED end
    write(id, fields, status)
    if key ~= 0 then call('SET', K_KEY .. key, id) end
    if expires ~= 0 then call('ZADD', K_EXPIRIES, now + expires, id) end
    if needs ~= 0 then
      defer(id, queue, needs)
      local verdict = needs_of(id, true, false)
      if verdict ~= 'unmet' then
        withdraw(id, queue, S_DEFERRED)
        if verdict ~= 'met' then
          close(id, because_of(verdict), T_DEPENDENCY)
        elseif due > now then
          status = S_SCHEDULED
          call('HSET', K_JOB .. id, F_status, S_SCHEDULED)
        else
          enqueue(queue, id, priority, false)
        end
      end
    elseif status == S_QUEUED then
      place(queue, id, priority, false)
    end
    if status == S_SCHEDULED then
      call('ZADD', K_SCHEDULED .. queue, due, id)
      wake = queue
    end
  end
end
if wake then call('PUBLISH', K_WAKE, wake) end
send_news()
return stand
