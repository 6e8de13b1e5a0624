-- needs: prelude queue rate_limit result complete requeue
-- Sign a worker off; what it holds goes back, its attempt not counted. Argument: {worker, counted: 1 or 0}.
-- With `counted` it is a worker of the same name that died. Returns how many jobs went back.
local worker, counted = unpack(cmsgpack.unpack(ARGV[1]))
begin_writing()
local returned = put_back(worker, counted == 1)
local wkey = K_WORKER .. worker
if call('EXISTS', wkey) == 1 then
  call('HSET', wkey, F_death, iso)
  call('HDEL', wkey, F_claim_seq)
  call('EXPIRE', wkey, 60)
end
send_news()
return returned
