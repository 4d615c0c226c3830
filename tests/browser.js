// The page of scoliojax.app and the reports in headless Chromium, by hand, while the page is served:
//   npm install playwright-core axe-core
//   CHROMIUM=/usr/bin/chromium node tests/browser.js http://127.0.0.1:7860 WALK.mp4 PEOPLE.mp4 PERSON PICTURES [REPORT.html ...]
// WALK.mp4 shows one person; PEOPLE.mp4 several, of whom PERSON is screened. Each step is looked at 1200 and 390 pixels wide, in
// light and in dark; a picture of each is written, to look at. Fails where axe-core finds anything serious in what we write, the
// page is wider than the window, an answer is missing or out of view, the page asks for anything from elsewhere, or a mistake is
// not told. REPORT.html are further reports, such as one of scoliojax.report.
const assert = require('assert'), fs = require('fs'), os = require('os'), path = require('path'), url = require('url');
const { chromium } = require('playwright-core');

const [address, walk, people, person, pictures, ...reports] = process.argv.slice(2);
const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const button = 'button:has-text("Screen this walk")', ready = `${button}:not([disabled])`;
const STAGES = ['waiting', 'looking at the scene', 'finding the person', 'reading the walk', 'writing the report'];
const OTHERS = ['.upload-container']; // what gradio writes: its button to upload is named otherwise than it reads

async function look(page, name) { // accessibility, width, picture
  await page.evaluate(axe);
  const found = await page.evaluate(others => axe.run({ exclude: others }, { iframes: false }), OTHERS);
  const grave = found.violations.filter(one => ['serious', 'critical'].includes(one.impact));
  const said = grave.map(one => `${one.id}: ${one.nodes.map(node => `${node.html} ${node.failureSummary}`).join('; ')}`);
  assert.deepStrictEqual(said, [], name);
  assert(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth), `${name} is wider than the window`);
  await page.screenshot({ path: path.join(pictures, `${name}.png`), fullPage: true });
}

async function lookAtReport(browser, file, name) {
  for (const width of [1200, 390]) {
    for (const colorScheme of ['light', 'dark']) {
      const page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme, bypassCSP: true }); // for axe alone
      await page.goto(url.pathToFileURL(path.resolve(file)).href);
      const shown = await page.$$eval('img', all => all.every(one => one.complete && one.naturalWidth > 0));
      assert(shown, `${name}: a picture is missing`);
      const silent = await page.$$eval('.wide, .scroll', all => all.filter(one => one.scrollWidth > one.clientWidth + 1
        && getComputedStyle(one, '::before').display === 'none').map(one => one.ariaLabel));
      assert.deepStrictEqual(silent, [], `${name}: cut without saying that it scrolls`);
      await look(page, `${name}-${width}-${colorScheme}`);
      await page.close();
    }
  }
}

async function use(browser, width, colorScheme) {
  const page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme }), as = `${width}-${colorScheme}`;
  const elsewhere = [], wrong = [];
  page.on('request', one => {
    if (!one.url().startsWith(address) && !/^(data|blob):/.test(one.url())) elsewhere.push(one.url());
  });
  page.on('pageerror', error => wrong.push(String(error)));
  page.on('console', line => { if (line.type() === 'error') wrong.push(line.text()); });
  const give = async file => { await page.setInputFiles('input[type=file]', file); await page.waitForSelector(ready); };
  const spoken = () => page.innerText('#spoken [role=status]');
  async function ask() { // until it has ended, one way or another
    const begun = Date.now(), stages = new Set(), before = await spoken();
    await page.click(button);
    for (let said = before; said === before || STAGES.includes(said); said = await spoken()) {
      assert(Date.now() - begun < 120000, 'no end in two minutes');
      if (said !== before) stages.add(said);
      await page.waitForTimeout(50);
    }
    await page.waitForTimeout(800); // the way to the answer
    console.log(`${as}: ${((Date.now() - begun) / 1000).toFixed(1)} s, ${[...stages].join(', ')}; "${await spoken()}"`);
    return stages;
  }
  const inView = place => page.$eval(place, one => {
    const { top } = one.getBoundingClientRect();
    return top > -20 && top < 0.8 * window.innerHeight;
  });

  await page.goto(address);
  await page.waitForSelector(button);
  await page.waitForTimeout(1000);
  await look(page, `page-start-${as}`);

  await give(people);
  assert((await ask()).has('finding the person'));
  const choices = await page.$$('#people input');
  assert(choices.length > 1 && await inView('#people'));
  assert((await spoken()).includes(`${choices.length} people walk here`));
  await page.click(`#people label:has([value="${person}"]) img`);
  await look(page, `page-people-${as}`);
  await ask();
  assert(await inView('#answer') && !await page.$('#people input'));
  assert((await page.innerText('#answer')).includes(await spoken()));
  const report = page.frames().find(one => one !== page.mainFrame());
  assert((await report.innerText('body')).includes(`number ${person} was taken`));
  await look(page, `page-answer-${as}`);
  const [saved] = await Promise.all([page.waitForEvent('download'), page.click('text=Save this report')]);
  await saved.saveAs(path.join(pictures, 'people.html'));

  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'names-')), note = path.join(folder, 'note.txt');
  fs.writeFileSync(note, 'no video');
  await give(note);
  assert(!await page.$('#people input') && !await page.$('iframe'), 'the answer before is gone');
  await ask();
  assert((await page.innerText('#answer .banner')).includes('note.txt'));
  await look(page, `page-mistake-${as}`);
  if (width === 1200 && colorScheme === 'light') {
    await page.getByLabel('The camera stands still').check();
    for (const name of ['walk', 'walk$1_{$.mp4', '走路.mp4', `${'x'.repeat(250)}.mp4`, 'a & <b>.mp4']) {
      fs.copyFileSync(walk, path.join(folder, name));
      await give(path.join(folder, name));
      await ask();
      const [, title] = /Gait screening of (.*)/.exec(await page.frames().at(-1).innerText('h1'));
      console.log(`  ${name.slice(0, 20)} is shown as ${title.slice(0, 20)}`);
    }
    await give(people);
    await page.click(button);
    await page.waitForSelector('#progress >> text=Finding the person');
    await page.click('button:has-text("Cancel")');
    await page.waitForFunction(() => document.querySelector('#spoken').innerText.includes('Cancelled'));
    await page.waitForSelector(`${button}[disabled]`);
    await give(walk);
    await page.getByLabel('Prevalence').fill('half');
    await ask();
    assert((await page.innerText('#answer .banner')).includes('is no percentage'));
    await page.getByLabel('Prevalence').fill('3 %');
    await ask();
    assert((await page.frames().at(-1).innerText('body')).includes('Where 3 % of the people'), 'the video was still here');
    const [second] = await Promise.all([page.waitForEvent('download'), page.click('text=Save this report')]);
    await second.saveAs(path.join(pictures, 'walk.html'));
  }
  fs.rmSync(folder, { recursive: true });
  await page.close();
  assert.deepStrictEqual(elsewhere, []);
  assert.deepStrictEqual(wrong, []);
}

async function main() {
  fs.mkdirSync(pictures, { recursive: true });
  const options = ['--no-sandbox', '--disable-gpu', '--disable-background-networking'];
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: options });
  for (const width of [1200, 390]) for (const scheme of ['light', 'dark']) await use(browser, width, scheme);
  const own = ['people.html', 'walk.html'].map(name => path.join(pictures, name));
  for (const file of [...own, ...reports]) await lookAtReport(browser, file, path.basename(file, '.html'));
  await browser.close();
}

main().catch(error => { console.error(error); process.exit(1); });
