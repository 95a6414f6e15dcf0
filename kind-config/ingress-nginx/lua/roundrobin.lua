-- A stand-in for resty.roundrobin of lua-resty-balancer, which is in no package registry that this
-- build uses. It keeps the interface that ingress-nginx calls (new, find, reinit, nodes) and the
-- behaviour that its tries show: nodes in turn, by weight, beginning at a random one, because every
-- worker has a balancer of its own. The original spreads the turns of heavy nodes more evenly; the
-- weights of ingress-nginx' endpoints are all 1, where the two are the same.
local pairs = pairs
local setmetatable = setmetatable
local random = math.random
local sort = table.sort

local _M = {}
local meta = { __index = _M }

local function turns(nodes)
  local ids, list = {}, {}
  for id in pairs(nodes) do
    ids[#ids + 1] = id
  end
  sort(ids)
  for _, id in pairs(ids) do
    for _ = 1, nodes[id] do
      list[#list + 1] = id
    end
  end
  return list
end

local function copy(nodes)
  local own = {}
  for id, weight in pairs(nodes) do
    own[id] = weight
  end
  return own
end

function _M.new(_, nodes)
  local self = setmetatable({}, meta)
  self:reinit(nodes)
  return self
end

function _M.reinit(self, nodes)
  self.nodes = copy(nodes)
  self.list = turns(nodes)
  self.last = #self.list > 0 and random(#self.list) or 0
end

function _M.find(self)
  if #self.list == 0 then
    return nil
  end
  self.last = self.last % #self.list + 1
  return self.list[self.last]
end

return _M
