"""The HTML of the report, a Jinja template filled by `report`."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ name }} on {{ results.split }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #f4f5f7; margin: 0; }
main { max-width: 1320px; margin: 0 auto; padding: 24px; }
section { background: #fff; border: 1px solid #dfe2e6; border-radius: 8px; padding: 16px 24px;
  margin: 16px 0; }
h1 { margin: 8px 0 0; } h2 { margin: 4px 0 8px; } h3 { margin: 20px 0 4px; }
p { margin: 6px 0; } .note { color: #59636e; font-size: 13px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.tile { background: #f4f5f7; border-radius: 6px; padding: 10px 14px; }
.tile b { display: block; font-size: 24px; font-variant-numeric: tabular-nums; }
.tile span { font-size: 13px; color: #59636e; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 4px 12px; text-align: right; border-bottom: 1px solid #e6e8eb; }
th:first-child, td:first-child { text-align: left; }
th { color: #59636e; font-weight: 600; } tr.mean td { font-weight: 600; }
img { width: 100%; display: block; margin: 8px 0; }
.scroll { overflow-x: auto; } code { font-size: 13px; overflow-wrap: anywhere; }
</style>
</head>
<body><main>
<h1>{{ name }}</h1>
<p class="note">{{ results.scored_frames.all }} frames of {{ results.split }} in
<code>{{ results.dataset }}</code>
{%- if results.checkpoint %} · checkpoint <code>{{ results.checkpoint }}</code>{% endif %}
{%- if results.sha256 %} · sha256 <code>{{ results.sha256[:16] }}</code>{% endif %}
{%- if results.backbone %} · {{ results.backbone }}, input {{ results.input_size | join('×') }}
{%- endif %}
{%- if results.device %} · {{ results.device }}{% endif %}
· median time for one frame {{ results.predict_ms | number(1) }} ms</p>

<section><div class="tiles">
{%- for label, value in tiles %}
<div class="tile"><b>{{ value }}</b><span>{{ label }}</span></div>
{%- endfor %}
</div>
<p class="note">Frames with labels:
{%- for task in ('detection3d', 'semantic', 'depth') %}
{{ task }} {{ results.scored_frames[task] }}{{ ',' if not loop.last else '.' }}
{%- endfor %}
Scored at full image resolution. mIoU: 19 classes, void not scored. RMSE over all
pixels of the set, metres for depths below 80 m, disparity for every pixel that has one; where the
network says there is no depth (sky) but the truth has one, its answer counts as 80 m.
Detection Score: the official tool, IoU &gt; 0.7; means are over classes that occur.</p>
{%- if results.broken %}
<details open><summary>Broken frames that were left out: {{ results.broken | length }}</summary>
<ul>{% for line in results.broken %}<li><code>{{ line }}</code></li>{% endfor %}</ul></details>
{%- endif %}
</section>

{%- if results.detection3d %}
<section><h2>3D detection</h2>
{%- for matching in ('amodal', 'modal') %}
<h3>{{ matching | capitalize }} matching</h3>
<div class="scroll"><table>
<tr><th>class</th><th>DS %</th><th>AP %</th><th>centre %</th><th>yaw %</th><th>pitch, roll %</th>
<th>size %</th><th>boxes</th><th>working confidence</th></tr>
{%- for label, score in results.detection3d[matching].classes.items() %}
<tr><td>{{ label }}</td>
{%- if score %}{% for key in terms %}<td>{{ score[key] | percent }}</td>{% endfor %}
<td>{{ score.boxes }}{% if score.range_bins == 1 %} *{% endif %}</td>
<td>{{ score.working_confidence | number(2) }}</td>
{%- else %}<td colspan="8">does not occur</td>{% endif %}</tr>
{%- endfor %}
<tr class="mean"><td>mean</td>
{%- for key in terms %}<td>{{ results.detection3d[matching].mean[key] | percent }}</td>
{%- endfor %}<td></td><td></td></tr>
</table></div>
{%- endfor %}
<p class="note">DS = AP × mean of the four terms. The terms rate only the boxes that matched, so a
class with few boxes found can have good ones; 100 is perfect. Those of the angles are cosines: an
error of 1° costs less than 0.01. Matching is at the working confidence, where precision × recall
is greatest: the large dots in the curves.</p>
{%- if one_bin %}
<p class="note">* all matched boxes of this class lie in one 5 m range bin; the official rule then
sets its four terms, and with them its Detection Score, to 0.</p>
{%- endif %}
{%- if figures.precision_recall %}
<img src="{{ figures.precision_recall }}" alt="precision over recall">
<h3>Errors of the {{ results.detection3d.matched.boxes }} boxes matched amodally</h3>
{%- if figures.box_errors %}
<p class="note">Angles between true and predicted box in the axes of the true one. A level box has
the true yaw and neither pitch nor roll: the heads are worth having where they beat it.</p>
<img src="{{ figures.box_errors }}" alt="box error over distance">
{%- else %}<p>No box matched.</p>
{%- endif %}
{%- endif %}
</section>
{%- endif %}

{%- if results.semantic %}
<section><h2>Semantic segmentation</h2>
{%- if figures.class_iou %}
<p>Pixel accuracy {{ results.semantic.pixel_accuracy | percent }} %</p>
<img src="{{ figures.class_iou }}" alt="IoU by class">
<img src="{{ figures.confusion }}" alt="confusion matrix">
{%- else %}<p>All pixels are void.</p>
{%- endif %}
</section>
{%- endif %}

{%- if results.depth %}
<section><h2>Depth</h2>
<table>
<tr><th>pixels below 80 m</th><th>RMSE m</th><th>RMSE disparity px</th><th>mean error m</th>
<th>mean relative %</th><th>pixels within 25 %</th><th>pixels without answer</th></tr>
<tr><td>{{ '{:,}'.format(results.depth.pixels) }}</td>
<td>{{ results.depth.rmse_m | number(3) }}</td>
<td>{{ results.depth.rmse_disp_px | number(3) }}</td><td>{{ results.depth.abs_m | number(3) }}</td>
<td>{{ results.depth.abs_rel | percent }}</td><td>{{ results.depth.delta1 | percent }} %</td>
<td>{{ results.depth.missing | percent }} %</td></tr></table>
{%- if figures.depth_errors %}
<img src="{{ figures.depth_errors }}" alt="depth error over distance">
{%- endif %}
</section>
{%- endif %}

{%- for title, shown in (('Best frames', best), ('Worst frames', worst)) if shown %}
<section><h2>{{ title }}</h2>
<p class="note">By the mean of mIoU, share of depths within 25 %, and F1 of the boxes.
Upper row: network, boxes above the working confidence. Lower row: ground truth.</p>
{%- for frame in shown %}
<h3>{{ frame.name }}</h3><p>{{ frame.text }}</p>
<img src="{{ frame.picture }}" alt="{{ frame.name }}">
{%- endfor %}
</section>
{%- endfor %}

{%- if attention %}
<section><h2>Attention</h2>
<p class="note">As the paper's Fig. 4: the feature h that all tasks share, the spatial attention β,
also shared, and for every task α·h and α·h + β, which is what its head sees. A square is 8×8
pixels of the network's input, its colour the mean over the channels, from the 1st percentile of
the map (blue) to the 99th (red); these two values stand above each map.</p>
{%- for frame in attention %}
<h3>{{ frame.name }}</h3><img src="{{ frame.picture }}" alt="attention of {{ frame.name }}">
{%- endfor %}
</section>
{%- endif %}

<section><details><summary>All {{ results.frames | length }} frames</summary>
<div class="scroll"><table>
<tr><th>frame</th><th>rating</th><th>mIoU %</th><th>RMSE m</th><th>hits</th><th>false</th>
<th>missed</th><th>ms</th></tr>
{%- for row in results.frames | sort(attribute='name') %}
<tr><td>{{ row.name }}</td><td>{{ row.rating | number(3) }}</td><td>{{ row.miou | percent }}</td>
<td>{{ row.rmse_m | number(2) }}</td><td>{{ row.hits }}</td><td>{{ row.false }}</td>
<td>{{ row.missed }}</td><td>{{ row.predict_ms | number(1) }}</td></tr>
{%- endfor %}
</table></div></details></section>
</main></body></html>
"""
