-- In the place of a library of OpenResty that no package registry of this build has, and that no
-- plain Ingress needs (hashing, global rate limits, OCSP, EWMA). It can be loaded and `new` made of
-- it, as ingress-nginx does when it starts; using it is an error.
local name = ...
local nothing
nothing = setmetatable({}, {
  __index = function(_, key)
    if key == "new" then
      return function()
        return nothing
      end
    end
    error(name .. "." .. tostring(key) .. " is not in this build of ingress-nginx", 2)
  end,
})
return nothing
