// The fold of "On this page", and the search over names and headings (search.js); nothing is fetched.
const toc = document.querySelector('.toc'), q = document.querySelector('#q'), hits = document.querySelector('#hits')
if (toc && innerWidth >= 1500) toc.open = true
document.querySelector('[aria-current=page]')?.scrollIntoView({ block: 'nearest' })

q.addEventListener('input', () => {
  const words = q.value.toLowerCase().split(/\s+/).filter(Boolean)
  const rank = ([name]) => name.toLowerCase().startsWith(words[0]) ? 0 : 1
  const found = words.length ? SEARCH.filter(([name]) => words.every(w => name.toLowerCase().includes(w))) : []
  hits.replaceChildren(...found.sort((a, b) => rank(a) - rank(b)).slice(0, 12).map(([name, url, page]) => {
    const li = document.createElement('li'), a = document.createElement('a'), small = document.createElement('small')
    a.href = document.body.dataset.up + url; a.textContent = name; small.textContent = page
    li.append(a, small)
    return li
  }))
  if (words.length && !found.length) hits.textContent = 'Nothing by that name.'
})
q.addEventListener('keydown', e => {
  if (e.key === 'Enter') hits.querySelector('a')?.click()
  if (e.key === 'Escape') { q.value = ''; hits.replaceChildren() }
})
