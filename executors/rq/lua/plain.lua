-- Part: the put of jobs of which none is there and nothing rare is said, before anything is made for the other ones.
local nonce, any_rare, jobs = unpack(cmsgpack.unpack(ARGV[1]))

local function write(id, fields, status)
  local n = #fields
  fields[n + 1], fields[n + 2] = F_created_at, iso
  fields[n + 3], fields[n + 4] = F_enqueued_at, iso
  fields[n + 5], fields[n + 6] = F_status, status
  call('HSET', K_JOB .. id, unpack(fields))
end

-- Which ids are there already
local keys, plain = {}, any_rare == 0
for i, job in ipairs(jobs) do keys[i] = K_JOB .. job[1] end
for first = 1, #keys, 5000 do
  plain = plain and call('EXISTS', unpack(keys, first, math.min(first + 4999, #keys))) == 0
end
if plain then
  local lists = {}
  for _, job in ipairs(jobs) do
    local queue = job[2]
    local ids = lists[queue]
    if ids == nil then
      ids = {}
      lists[queue] = ids
      plain = plain and call('EXISTS', K_PRIORITIES .. queue) == 0
    end
    ids[#ids + 1] = job[1]
  end
  if plain then
    for _, job in ipairs(jobs) do write(job[1], job[3], S_QUEUED) end
    for queue, ids in pairs(lists) do
      call('SADD', K_QUEUES, K_QUEUE .. queue)
      for first = 1, #ids, 5000 do
        call('RPUSH', K_QUEUE .. queue, unpack(ids, first, math.min(first + 4999, #ids)))
      end
    end
    return 0
  end
end

