-- needs: prelude
-- Note that jobs begin. Argument: {{id, token, queue, ...}}. Returns the ids of
-- those that are not this worker's any more.
local jobs = unpack(cmsgpack.unpack(ARGV[1]))
local lost = {}
begin_writing()
for n = 1, #jobs, 3 do
  local composite = jobs[n] .. ':' .. jobs[n + 1]
  if call('ZSCORE', K_WIP .. jobs[n + 2], composite) then
    call('HSET', K_JOB .. jobs[n], F_told, jobs[n + 1])
    call('HDEL', K_JOB .. jobs[n], F_suspect)
    call('HSET', K_EXECUTION .. composite, F_begun, 1)
    call('EXPIRE', K_EXECUTION .. composite, T_ALIVE)
  else
    lost[#lost + 1] = jobs[n]
  end
end
return lost
