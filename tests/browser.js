// The page of scoliojax.app in headless Chromium, by hand, while it is served:
//   npm install playwright-core
//   CHROMIUM=/usr/bin/chromium node tests/browser.js http://127.0.0.1:7860 WALK.mp4 PERSON PICTURES
// Has every backend answer for the clip, reads the answers, and writes a picture of each to look at. Fails where there is no
// answer, a picture of the report is missing, the page asks for anything from elsewhere, or a mistake is not told.
const assert = require('assert'), fs = require('fs'), path = require('path');
const { chromium } = require('playwright-core');

const [address, clip, person, pictures] = process.argv.slice(2);

async function main() {
  fs.mkdirSync(pictures, { recursive: true });
  const options = ['--no-sandbox', '--disable-gpu', '--disable-background-networking'];
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: options });
  const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
  const elsewhere = [], wrong = [];
  page.on('request', one => {
    if (!one.url().startsWith(address) && !/^(data|blob):/.test(one.url())) elsewhere.push(one.url());
  });
  page.on('pageerror', error => wrong.push(String(error)));
  page.on('console', line => { if (line.type() === 'error') wrong.push(line.text()); });
  const button = 'button:has-text("Screen this walk")';

  async function ask(backend, number) {
    const begun = Date.now();
    await page.setInputFiles('input[type=file]', clip);
    await page.waitForSelector(`${button}:not([disabled])`);
    await page.getByLabel(backend, { exact: true }).check();
    await page.getByLabel('Person').fill(number);
    await page.click(button);
    await page.waitForSelector(`${button}[disabled]`, { timeout: 300000 });
    await page.waitForTimeout(1000);
    console.log(`${backend}, person ${number || 'not given'}: ${((Date.now() - begun) / 1000).toFixed(1)} s`);
  }

  await page.goto(address);
  await page.waitForSelector(button);
  await page.waitForTimeout(1000);
  for (const radio of await page.$$('input[type=radio]')) {
    const backend = await radio.getAttribute('value');
    await ask(backend, person);
    const report = page.frames().find(one => one !== page.mainFrame());
    assert(report, await page.innerText('body'));
    console.log((await report.innerText('.heads')).replace(/\n+/g, '\n'));
    const shown = await report.$$eval('img', all => all.map(one => one.complete && one.naturalWidth > 0));
    assert.deepStrictEqual(shown, [true, true, true, true], 'windows, strips, silhouettes moving and in a sheet');
    await page.setViewportSize({ width: 1200, height: 1900 }); // fullPage looks before the resized report is drawn
    await page.waitForTimeout(1000);
    await page.screenshot({ path: path.join(pictures, `${backend}.png`) });
    const [saved] = await Promise.all([page.waitForEvent('download'), page.click('text=Save this report')]);
    await saved.saveAs(path.join(pictures, `${backend}.html`));
  }
  await ask('background', '99');
  assert((await page.innerText('[role=alert]')).includes('person 99 is not there'));
  await page.setViewportSize({ width: 1200, height: 900 });
  await page.screenshot({ path: path.join(pictures, 'mistake.png') });
  const other = path.join(pictures, 'note.txt');
  fs.writeFileSync(other, 'no video');
  await page.setInputFiles('input[type=file]', other);
  await page.waitForSelector('text=Invalid file type');
  await page.setViewportSize({ width: 390, height: 844 });
  await page.waitForTimeout(500);
  assert(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth), 'wider than a phone');
  await page.screenshot({ path: path.join(pictures, 'phone.png') });
  await browser.close();
  assert.deepStrictEqual(elsewhere, []);
  assert.deepStrictEqual(wrong, []);
}

main().catch(error => { console.error(error); process.exit(1); });
