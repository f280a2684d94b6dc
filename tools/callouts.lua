-- Quarto's callouts: an aside, or a fold where collapse="true"
function Div(el)
  for _, kind in ipairs{'note', 'tip', 'warning', 'important', 'caution'} do
    if el.classes:includes('callout-' .. kind) then
      local c, title = el.content, {pandoc.Str(kind:sub(1, 1):upper() .. kind:sub(2))}
      if el.attributes.title then title = {pandoc.Str(el.attributes.title)} end
      if c[1] and c[1].t == 'Header' then title = c[1].content; c:remove(1) end
      local fold = el.attributes.collapse ~= nil
      local open = fold and (el.attributes.collapse == 'false' and '<details open' or '<details') or '<aside'
      c:insert(1, pandoc.RawBlock('html', fold and '</summary>' or '</p>'))
      c:insert(1, pandoc.Plain(title))
      c:insert(1, pandoc.RawBlock('html', open .. ' class="callout ' .. kind .. '">' .. (fold and '<summary>' or '<p class="title">')))
      c:insert(pandoc.RawBlock('html', fold and '</details>' or '</aside>'))
      return c
    end
  end
end
