-- Which visual prompts were made, of how many objects, in how many levels?
SELECT
    p.run_id, p.shard, p.sample_id, p.image_id, p.task, p.num_objects, p.level_sizes,
    p.saliency_scores, p.role, p.width, p.height, p.source, p.license, p.image_sha256,
    p.source_sha256, p.net, p.segmenter, p.flat_saliency, p.saliency_peak, p.overlap,
    -- Without outlines, which are long: those are in the Parquet.
    list_transform(p.objects, lambda o: {
        'id': o.id, 'category': o.category, 'bbox': o.bbox, 'saliency': o.saliency,
        'color': o.color
    }) AS objects,
    g.seconds
FROM base.prompts p
LEFT JOIN base.timings g ON g.run_id = p.run_id AND g.sample_id = p.sample_id
