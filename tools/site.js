// The fold of "On this page", and the search over names, headings and text (search.js, read at the first key); nothing is fetched.
const toc = document.querySelector('.toc'), q = document.querySelector('#q'), hits = document.querySelector('#hits')
if (toc && innerWidth >= 1500) toc.open = true
document.querySelector('[aria-current=page]')?.scrollIntoView({ block: 'nearest' })

let loading = null
const load = () => loading ??= new Promise(done => {
  const s = document.createElement('script')
  s.src = document.body.dataset.up + 'search.js'
  s.onload = done
  document.head.append(s)
})
const snippet = (text, word) => {
  const at = Math.max(0, text.toLowerCase().indexOf(word) - 40)
  return (at ? '… ' : '') + text.slice(at, at + 110) + ' …'
}
// 0: the name begins with the first word; 1: the name holds all words; 2: name and text do
const rank = ([name, , , text], words) => {
  const n = name.toLowerCase()
  if (words.every(w => n.includes(w))) return n.startsWith(words[0]) ? 0 : 1
  const all = n + ' ' + text.toLowerCase()
  return words.every(w => all.includes(w)) ? 2 : 3
}
const show = () => {
  const words = q.value.toLowerCase().split(/\s+/).filter(Boolean)
  const found = words.length ? SEARCH.map(e => [rank(e, words), e]).filter(([r]) => r < 3).sort((a, b) => a[0] - b[0]) : []
  hits.replaceChildren(...found.slice(0, 20).map(([r, [name, url, page, text]]) => {
    const li = document.createElement('li'), a = document.createElement('a'), small = document.createElement('small')
    a.href = document.body.dataset.up + url; a.textContent = name
    small.textContent = r === 2 ? `${page}${page ? ': ' : ''}${snippet(text, words[0])}` : page
    li.append(a, small)
    return li
  }))
  if (words.length && !found.length) hits.textContent = 'Nothing found.'
}
q.addEventListener('focus', load)
q.addEventListener('input', () => load().then(show))
q.addEventListener('keydown', e => {
  if (e.key === 'Enter') hits.querySelector('a')?.click()
  if (e.key === 'Escape') { q.value = ''; hits.replaceChildren() }
})
