-- Orthanc: send each CT series to ct-cncl when it is stable, that is, when nothing has come for StableAge seconds.
-- The node knows its own results and ignores them; they are left out here too, so that they do not travel for nothing.
function OnStableSeries(seriesId, tags, metadata)
  if tags['Modality'] == 'CT' and metadata['RemoteAET'] ~= 'NODE' then
    RestApiPost('/modalities/ct-cncl/store', DumpJson({ Resources = { seriesId }, Asynchronous = true }))
  end
end
